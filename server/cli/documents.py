"""YAML as people write configuration, read with the line of each value.

What a plain word means is narrower than in YAML 1.1: `null`, `true`, `false` and decimal numbers are those, all else is
text, so that `no`, `on`, `1:30` and `2026-12-01` stay what they look like. Of tags, `!!str` alone is read.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import yaml

LARGEST_BYTES = 8 << 20
DEEPEST = 40
# What a file may hold when each alias is written out: 10,000 monitors take a fifth of it.
MOST_NODES = 500_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAG = "tag:yaml.org,2002:str"
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FRACTION = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})\.[0-9]{0,18}([eE][-+]?[0-9]{1,3})?")

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing wrong with a file, and what is right. Line 0: it is no single line's."""

    line: int
    detail: str


class UnusableFile(Exception):
    """A file cannot be used. `problems` are those that were found, in the order of their lines."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems))
        self.problems = sorted(problems)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands. `size` counts the values within, each alias written out."""

    line: int
    value: "Scalar | list[Node] | dict[str, Node]" = field(repr=False)
    size: int = 1

    def plain(self) -> Any:
        """Return the value without its lines."""
        if isinstance(self.value, dict):
            return {name: member.plain() for name, member in self.value.items()}
        return [member.plain() for member in self.value] if isinstance(self.value, list) else self.value

    def line_of(self, path: Path) -> int:
        """Return the line of what a path leads to, or of the last thing on the way that is there."""
        node = self
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                node = node.value[str(step)]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            else:
                break
        return node.line


def read_document(text: str) -> Node:
    """Read one YAML document. Raises UnusableFile."""
    if len(text) > LARGEST_BYTES:
        raise UnusableFile([Problem(0, f"The file is larger than {LARGEST_BYTES >> 20} MiB.")])
    try:
        return _Composer(yaml.parse(text, Loader=_LOADER)).read()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UnusableFile([Problem(line, f"This is not YAML: {error.problem or error.context}.")]) from None
    except yaml.YAMLError as error:
        raise UnusableFile([Problem(0, f"This is not YAML: {str(error).splitlines()[0]}.")]) from None


def _refuse(event: yaml.Event, detail: str) -> UnusableFile:
    return UnusableFile([Problem(_line(event), detail)])


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 0


class _Composer:
    """Makes nodes of the parser's events. An anchor counts once what it names is complete: nothing holds itself."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._anchors: dict[str, Node] = {}

    def read(self) -> Node:
        event = self._next()
        while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            raise _refuse(event, "The file is empty.")
        node = self._node(event, 0)
        self._next()
        if not isinstance(after := self._next(), yaml.StreamEndEvent):
            raise _refuse(after, "A second document begins here; a file holds one.")
        return node

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if depth > DEEPEST:
            raise _refuse(event, f"This is nested more than {DEEPEST} deep.")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _refuse(event, f"*{event.anchor} refers to nothing that stands complete before it.")
            return replace(self._anchors[event.anchor], line=_line(event))
        assert isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent), "only what has begun ends"
        if event.tag not in (None, "!", _TEXT_TAG):
            raise _refuse(event, f"The tag {event.tag} is not read here; leave it out.")
        node = self._of(event, depth)
        if node.size > MOST_NODES:
            raise _refuse(event, f"With its aliases written out, this holds more than {MOST_NODES:,} values.")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _of(self, event: yaml.NodeEvent, depth: int) -> Node:
        if isinstance(event, yaml.SequenceStartEvent):
            members = []
            while not isinstance(each := self._next(), yaml.SequenceEndEvent):
                members.append(self._node(each, depth + 1))
            return Node(_line(event), members, 1 + sum(member.size for member in members))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, depth)
        assert isinstance(event, yaml.ScalarEvent), "the parser knows no further events here"
        is_plain = event.tag is None and event.style in (None, "")
        return Node(_line(event), _meaning(event.value) if is_plain else event.value)

    def _mapping(self, start: yaml.Event, depth: int) -> Node:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not isinstance(each := self._next(), yaml.MappingEndEvent):
            name = self._name(each)
            value = replace(self._node(self._next(), depth + 1), line=_line(each))
            if name == "<<":
                merged = self._merged(each, value) | merged
            elif name in own:
                raise _refuse(each, f"{name} stands here a second time; the first is in line {own[name].line}.")
            else:
                own[name] = value
        members = merged | own
        return Node(_line(start), members, 1 + sum(member.size for member in members.values()))

    def _name(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag not in (None, "!", _TEXT_TAG):
            raise _refuse(event, "A name is expected here: one word, followed by a colon.")
        return str(event.value)

    def _merged(self, event: yaml.Event, value: Node) -> dict[str, Node]:
        sources = value.value if isinstance(value.value, list) else [value]
        merged: dict[str, Node] = {}
        for source in sources:
            if not isinstance(source, Node) or not isinstance(source.value, dict):
                raise _refuse(event, "<< takes a mapping, as in: <<: *defaults")
            merged = source.value | merged
        return merged


def _meaning(word: str) -> Scalar:
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        return int(word)
    return float(word) if _FRACTION.fullmatch(word) else word


def write_document(document: Any) -> str:
    """Write YAML that `read_document` reads as it was."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what another reader would not take for text, and repeats instead of naming anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Breaks of Unicode's that its own choice of quotes would fold into a blank.
        style = '"' if any(each in data for each in "\x85\u2028\u2029") else None
        return self.represent_scalar(_TEXT_TAG, data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)
