"""Worked examples for the OpenAPI document, made from the models' JSON schemas, so that they cannot fall behind them.

A model's own `examples` win, then a field's; most of the rest follows from its type. What does not (a text, a number)
is asked for by name: tests/http/test_openapi.py says `give Monitor.name an example`.
"""

import re
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from server.http.pagination import Position

A_MOMENT = "2026-11-24T09:30:00Z"
A_REQUEST_ID = "5f2b8c1d9e7a4c60b3d1f08a6e4c2b17"
A_CURSOR = Position("-created_at", A_MOMENT, uuid5(NAMESPACE_URL, "urn:tocsin:example")).encode()
_OF_NAME: dict[str, Any] = {"version": 3, "next_cursor": A_CURSOR}
_NOUNS = {"org": "organisation"}
_VARIANT = re.compile(r"^New|With\w+$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*")


class NoExample(Exception):
    """Nothing can be made up for this; the message says where: `Monitor.name`."""


def noun_of(parameter: str) -> str:
    """Return what an id's name is about: `incident` of `incident_id`, `organisation` of `org_id`."""
    noun = parameter.removesuffix("_id")
    return _NOUNS.get(noun, noun)


def example_id(noun: str) -> str:
    """Return the example's id of a thing: the same wherever an example speaks of it."""
    return str(uuid5(NAMESPACE_URL, f"urn:tocsin:example:{noun}"))


def examples_of(model_name: str, definitions: dict[str, Any]) -> list[Any]:
    """Return a model's own examples, or one that is made of its fields'. Raises NoExample."""
    schema = definitions[model_name]
    return list(schema["examples"]) if schema.get("examples") else [_make(schema, model_name, "", definitions)]


def page_example(row: Any) -> dict[str, Any]:
    """Return the first page of several that begins with this row."""
    return {"data": [row], "next_cursor": A_CURSOR}


def _make(schema: dict[str, Any], owner: str, name: str, definitions: dict[str, Any]) -> Any:
    if schema.get("examples"):
        return schema["examples"][0]
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    if "$ref" in schema:
        model = schema["$ref"].rsplit("/", 1)[1]
        return _make(definitions[model], model, "", definitions)
    if "enum" in schema:
        return schema["enum"][0]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return None if {"type": "null"} in options else _make(options[0], owner, name, definitions)
    return _make_typed(schema, owner, name, definitions)


def _make_typed(schema: dict[str, Any], owner: str, name: str, definitions: dict[str, Any]) -> Any:
    match schema.get("type"), schema.get("format"):
        case "object", _ if "properties" in schema:
            required = schema.get("required", [])
            return {
                inner: _make(of_inner, owner, inner, definitions)
                for inner, of_inner in schema["properties"].items()
                if inner in required or of_inner.get("examples")
            }
        case "array", _:
            return [_make(schema["items"], owner, name, definitions)]
        case "boolean", _:
            return False
        case "string", "uuid":
            return example_id(_words(owner) if name == "id" else noun_of(name))
        case "string", "date-time":
            return A_MOMENT
        case _ if name in _OF_NAME:
            return _OF_NAME[name]
    raise NoExample(f"{owner}.{name}" if name else owner)


def _words(model_name: str) -> str:
    """Return the noun of a model: `status_page` of `StatusPage`, `channel` of `NewChannel`."""
    return "_".join(_WORD.findall(_VARIANT.sub("", model_name))).lower()
