"""What a file wants and what an organisation has: the values that a plan is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from server.cli.documents import Node, Path


class Section(StrEnum):
    """A part of the file, in the order in which its things are made: later ones refer to earlier ones."""

    CHANNELS = "channels"
    MONITORS = "monitors"
    WINDOWS = "maintenance_windows"


class Traits(NamedTuple):
    """What is true of a section's things. `reference`: the field that names monitors. `fixed`: what no PATCH takes."""

    noun: str
    path: str
    reference: str | None
    fixed: frozenset[str] | None  # None: the API changes nothing of it
    loss: str  # what goes with it when it is deleted


TRAITS: Mapping[Section, Traits] = {
    Section.CHANNELS: Traits(
        "channel", "/v1/channels", None, None, "its signing secret, and what it has not been told yet"
    ),
    Section.MONITORS: Traits("monitor", "/v1/monitors", "depends_on", frozenset({"kind"}), "its history"),
    Section.WINDOWS: Traits(
        "maintenance window", "/v1/maintenance-windows", "monitor_ids", frozenset(), "what it still held back"
    ),
}


class Reference(NamedTuple):
    """A monitor that a thing names: by its key or name in the file, or by its name in the organisation."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing of a file, complete: `fields` has its defaults too, as they are on the wire.

    `written`: what of them stands in the file itself. `from_environment`: where values stand that the environment gave,
    which are never shown. `unset`: what secrets lack, which are needed only where they are sent.
    """

    section: Section
    key: str
    node: Node = field(repr=False)
    name: str
    fields: Mapping[str, Any] = field(repr=False)
    references: tuple[Reference, ...] = ()
    renamed_from: str | None = None
    written: frozenset[Path] = frozenset()
    from_environment: frozenset[Path] = frozenset()
    unset: Mapping[Path, str] = field(default_factory=dict)

    @property
    def line(self) -> int:
        """Return where it begins."""
        return self.node.line

    def line_at(self, pointer: str) -> int:
        """Return the line of what a JSON pointer of the wire's names, or of the next thing around it."""
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        path: Path = tuple(int(step) if step.isdigit() else step for step in steps)
        return self.node.line_of(("monitors", *path[1:]) if path[:1] == ("monitor_ids",) else path)


@dataclass(frozen=True, slots=True)
class Found:
    """One thing of an organisation, as the API shows it."""

    section: Section
    id: str
    name: str
    version: int
    fields: Mapping[str, Any] = field(repr=False)


Desired = Mapping[Section, list[Wanted]]  # what a file does not speak of is absent
Actual = Mapping[Section, list[Found]]

SECRETS = frozenset({"password", "token", "value"})


def public_auth(auth: Any) -> dict[str, Any] | None:
    """Return of credentials what the API shows: how they are sent, and as whom."""
    return None if auth is None else {name: auth[name] for name in ("type", "username", "name") if name in auth}
