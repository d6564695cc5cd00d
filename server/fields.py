"""Field types that mean the same to the API and to the probes: no Flask, no egress."""

from typing import Any

from pydantic import BeforeValidator, Field

# What stands beside a text, so that the document says by a pattern what is otherwise said by code alone.
# Postgres holds no NUL (parsing.unstorable); of what people write, more than blanks must be left.
WITHOUT_NUL = Field(json_schema_extra={"pattern": r"^[^\x00]*$"})
NOT_BLANK = Field(json_schema_extra={"pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"})


def _as_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# To JSON Schema, and to some languages' encoders, 60.0 is a whole number; a strict reader would refuse it.
WHOLE = BeforeValidator(_as_whole)
