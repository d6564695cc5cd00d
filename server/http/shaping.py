"""From a database row to its wire shape: the same names, and times in RFC 3339 UTC however Postgres spelled them.

Rows that go straight through are shaped here, at a third of what validating them as models costs (docs/decisions.md);
tests hold each one against its model. Rows that a rule has to look at are read as models (`replies.read_row`).
"""

from datetime import UTC, datetime
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from server.errors import AppError


def shape(model: type[BaseModel], rows: list[dict[str, Any]]) -> None:
    """Bring rows into the wire shape of `model`, in place. Raises AppError where they do not have its columns."""
    try:
        for row in rows:
            for name in time_fields(model):
                moment = row[name]
                if moment is not None:
                    row[name] = rfc3339(moment)
            for name, inner in list_fields(model):
                shape(inner, row[name])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: {model.__name__} {type(error).__name__} {error}") from None


def rfc3339(text: str) -> str:
    """Spell a time of Postgres as pydantic would: UTC, `T`, six digits or none, `Z`. Raises ValueError."""
    if text.endswith("+00:00") and text[10] == "T":  # as PostgREST spells every one
        seconds = text[:-6]
        return (seconds if len(seconds) in {19, 26} else seconds.ljust(26, "0")) + "Z"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without an offset")
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


@cache
def time_fields(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of a model's times."""
    return tuple(
        name for name, info in model.model_fields.items() if datetime in (info.annotation, *get_args(info.annotation))
    )


@cache
def list_fields(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel]], ...]:
    """Return the names of a model's lists of rows, such as an incident's comments, each with the model of its rows."""
    return tuple(
        (name, inner)
        for name, info in model.model_fields.items()
        if get_origin(info.annotation) is list
        for inner in get_args(info.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel)
    )
