"""Examples follow from the models, and where they cannot, they say what is missing."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

from server.http.examples import NoExample, examples_of


class Part(BaseModel):
    """A part."""

    name: str = Field(examples=["bolt", "nut"])


class Thing(BaseModel):
    """A thing."""

    id: UUID
    org_id: UUID
    kind: Literal["small", "large"]
    made_at: datetime
    sold_at: datetime | None
    is_sold: bool
    parts: list[Part]
    note: str | None = Field(examples=["fragile"])
    version: int


class Undescribed(BaseModel):
    """A thing whose part has no example."""

    class Inner(BaseModel):
        """Its part."""

        weight_grams: int

    inner: Inner


class Spelt(BaseModel):
    """A thing with examples of its own."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"colour": "red"}, {"colour": "blue"}]})

    colour: str


def make(model: type[BaseModel]) -> list[Any]:
    schema = model.model_json_schema(mode="serialization")
    return examples_of(model.__name__, {model.__name__: schema, **schema.get("$defs", {})})


def test_an_example_is_made_of_types_and_of_the_fields_own_examples():
    [thing] = make(Thing)
    assert Thing.model_validate(thing)
    assert thing["org_id"] != thing["id"] == make(Thing)[0]["id"], "an id is the same in each example"
    del thing["id"], thing["org_id"]
    assert thing == {
        "kind": "small",
        "made_at": "2026-11-24T09:30:00Z",
        "sold_at": None,
        "is_sold": False,
        "parts": [{"name": "bolt"}],
        "note": "fragile",
        "version": 3,
    }


def test_a_models_own_examples_win():
    assert make(Spelt) == [{"colour": "red"}, {"colour": "blue"}]


def test_what_cannot_be_made_up_is_asked_for_by_name():
    with pytest.raises(NoExample, match=r"^Inner\.weight_grams$"):
        make(Undescribed)
