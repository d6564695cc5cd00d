"""Query parameters that take several of a documented set, separated by commas: `state=open,acknowledged`."""

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What stands beside a parameter of several choices. It reads `a,b` as ("a", "b"), each once, in our own order.

    So two spellings of one wish are one statement to the database.
    """

    choices: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read a text of choices; the document shows an array of them."""
        one = core_schema.literal_schema(list(self.choices))
        several = core_schema.tuple_variable_schema(one, min_length=1)
        return core_schema.no_info_before_validator_function(self._read, several)

    def _read(self, text: str) -> tuple[str, ...]:
        wanted = set(text.split(","))
        if not wanted <= set(self.choices):
            raise PydanticCustomError(
                "unknown_choice", "Choose among {choices}; several with a comma.", {"choices": ", ".join(self.choices)}
            )
        return tuple(choice for choice in self.choices if choice in wanted)
