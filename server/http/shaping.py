"""From a database row to its wire shape: the same names, and times in RFC 3339 UTC however Postgres spelled them.

Rows that go straight through are shaped here, at a third of what validating them as models costs (docs/decisions.md);
tests hold each one against its model. Rows that a rule has to look at are read as models (`replies.read_row`).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from server.errors import AppError


def shape(model: type[BaseModel], rows: list[dict[str, Any]], included: Sequence[str] = ()) -> None:
    """Bring rows into the wire shape of `model`, in place. Raises AppError where they do not have its columns.

    `included` names those of the model's optional fields that were asked for: each row must have them.
    """
    times, lists = time_fields(model), list_fields(model)
    embedded = [(name, object_fields(model)[name]) for name in included if name in object_fields(model)]
    lists = tuple((name, inner) for name, inner in lists if name in included or model.model_fields[name].is_required())
    try:
        for row in rows:
            for name in times:
                moment = row[name]
                if moment is not None:
                    row[name] = rfc3339(moment)
            for name, inner in lists:
                shape(inner, row[name])
            for name, inner in embedded:
                row[name] = _shaped_one(inner, row[name])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: {model.__name__} {type(error).__name__} {error}") from None


def _shaped_one(model: type[BaseModel], found: Any) -> dict[str, Any] | None:
    """Return the one row that is embedded, None where there is none.

    PostgREST embeds the one of a relation that could have many as an array, and the embedded Supabase, which takes a
    partial unique index for a promise, as an object.
    """
    rows = found if isinstance(found, list) else [] if found is None else [found]
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} embedded rows for one")
    shape(model, rows)
    return rows[0] if rows else None


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


@cache
def object_fields(model: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """Return the names of a model's single embedded rows, such as a delivery's channel, each with its model."""
    return {
        name: inner
        for name, info in model.model_fields.items()
        for inner in (info.annotation, *get_args(info.annotation))
        if get_origin(info.annotation) is not list and isinstance(inner, type) and issubclass(inner, BaseModel)
    }
