"""`${NAME}`: what a file takes from the environment, so that secrets need not stand in it. `$${` means `${` itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.cli.documents import Node, Path

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
FORM = "A variable is written ${NAME}: letters, digits and _. Write $${ where ${ itself is meant."


@dataclass(slots=True)
class Expanded:
    """What the variables of a value were. `named`: where each stands. `unset`: those that the environment lacks."""

    named: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    unset: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    malformed: list[Path] = field(default_factory=list)


def expand(node: Node, env: Mapping[str, str], found: Expanded, path: Path = ()) -> Any:
    """Return a node's plain value with its variables replaced, and note in `found` where they stand.

    One that is not set is replaced by its own name: whoever uses the value asks `unset` first.
    """
    if isinstance(node.value, dict):
        return {name: expand(member, env, found, (*path, name)) for name, member in node.value.items()}
    if isinstance(node.value, list):
        return [expand(member, env, found, (*path, place)) for place, member in enumerate(node.value)]
    if not isinstance(node.value, str) or "${" not in node.value:
        return node.value
    names: list[str] = []

    def put(match: re.Match[str]) -> str:
        if match.group() == "$${":
            return "${"
        if not _NAME.fullmatch(name := match.group(1) or ""):
            found.malformed.append(path)
            return ""
        names.append(name)
        return env.get(name) or name

    text = _REFERENCE.sub(put, node.value)
    if names:
        found.named[path] = tuple(names)
    if missing := tuple(name for name in names if not env.get(name)):
        found.unset[path] = missing
    return text


def escape(value: Any) -> Any:
    """Return a value whose texts `expand` leaves as they are."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {name: escape(member) for name, member in value.items()}
    return [escape(member) for member in value] if isinstance(value, list) else value


def variable_name(*words: str) -> str:
    """Make a variable's name of some words: `shop-api`, `password` ► SHOP_API_PASSWORD."""
    name = re.sub(r"[^A-Z0-9]+", "_", "_".join(words).upper()).strip("_")
    return name if not name[:1].isdigit() else f"_{name}"
