"""Reading a file: from YAML to what it wants, every fault with its line and with what is right."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from server.cli.documents import Node, Path, Problem, UnusableFile, read_document
from server.cli.entries import HEARTBEAT, OPTIONS, ChannelEntry, Entry, MonitorEntry, WindowEntry
from server.cli.resources import SECRETS, Desired, Reference, Section, Wanted
from server.cli.variables import FORM, Expanded, expand, variable_name
from server.probes.assertions import parse
from server.probes.kinds import KINDS

_ENTRIES: Mapping[Section, type[Entry]] = {
    Section.CHANNELS: ChannelEntry,
    Section.MONITORS: MonitorEntry,
    Section.WINDOWS: WindowEntry,
}
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_WORDS = {
    "missing": "is required.",
    "string_type": "must be text; put it in quotes.",
    "int_type": "must be a whole number.",
    "bool_type": "must be true or false.",
    "list_type": "must be a list: a line for each, beginning with a dash.",
    "dict_type": "must be a mapping: lines of name: value.",
}


def read_desired(text: str, env: Mapping[str, str]) -> Desired:
    """Read what a file wants; `env` is what its variables stand for. Raises UnusableFile with every fault."""
    document = read_document(text)
    if not isinstance(document.value, dict):
        raise UnusableFile([Problem(document.line, f"The file must hold sections: {', '.join(Section)}.")])
    reader = _Reader(env)
    desired: dict[Section, list[Wanted]] = {}
    for name, node in document.value.items():
        if name in set(Section):
            desired[Section(name)] = reader.read_section(Section(name), node)
        elif not name.startswith("x-"):
            reader.fault(node.line, f"{name} is no section{_or_rather(name, list(Section))}")
    if not desired and not reader.problems:
        reader.fault(document.line, f"The file has no section, so there is nothing to do: {', '.join(Section)}.")
    if reader.problems:
        raise UnusableFile(reader.problems)
    return desired


def _or_rather(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f". There are: {', '.join(known)}."


class _Reader:
    """Reads entries one by one and collects what is wrong with them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[Problem] = []

    def fault(self, line: int, detail: str) -> None:
        """Note what is wrong."""
        self.problems.append(Problem(line, detail))

    def read_section(self, section: Section, node: Node) -> list[Wanted]:
        """Read a section's entries: a mapping from keys, in which no name stands twice."""
        if not isinstance(node.value, dict):
            self.fault(
                node.line,
                f"{section} must map keys to entries. Leave it out and they stay as they are; write {{}} for none.",
            )
            return []
        wanted = [each for key, entry in node.value.items() if (each := self._read_entry(section, key, entry))]
        first: dict[str, Wanted] = {}
        for each in wanted:
            if (twin := first.setdefault(each.name, each)) is not each:
                self.fault(
                    each.line,
                    f"{section}.{each.key} has the name {each.name!r}, as {twin.key} in line {twin.line}. Things are "
                    "found again by their names: give each its own.",
                )
        return wanted

    def _read_entry(self, section: Section, key: str, node: Node) -> Wanted | None:
        where = f"{section}.{key}"
        before = len(self.problems)
        if not _KEY.fullmatch(key):
            self.fault(node.line, f"The key {key!r} must be of letters, digits, _ . and -, at most 100.")
        if not isinstance(node.value, dict):
            self.fault(node.line, f"{where} must be a mapping: lines of name: value.")
            return None
        if section is Section.MONITORS:
            self._refuse_plain_secrets(where, key, node)
        found = Expanded()
        raw = expand(node, self._env, found)
        if found.malformed:
            self.problems += [Problem(node.line_of(path), FORM) for path in found.malformed]
            return None
        entry = self._validate(where, node, _ENTRIES[section], raw)
        for path, names in found.unset.items():
            if not _is_secret(path):
                self.fault(node.line_of(path), f"{where}: {_not_set(names)}")
        fields = self._complete(where, node, entry) if entry is not None else None
        if entry is None or fields is None or len(self.problems) > before:
            return None
        reference = "depends_on" if section is Section.MONITORS else "monitors"
        return Wanted(
            section=section,
            key=key,
            node=node,
            name=entry.name or key,
            fields=fields,
            references=tuple(
                Reference(text, node.line_of((reference, place)))
                for place, text in enumerate(getattr(entry, reference, []))
            ),
            renamed_from=entry.renamed_from,
            written=frozenset(_written(raw)),
            from_environment=frozenset(found.named),
            unset={path: _not_set(names) for path, names in found.unset.items() if _is_secret(path)},
        )

    def _validate(
        self, where: str, node: Node, model: type[BaseModel], raw: Any, path: Path = (), strict: bool = True
    ) -> Any:
        try:
            # By way of JSON, in which a strict reader takes an enumeration's members from text.
            return model.model_validate_json(json.dumps(raw), strict=strict)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_input=False):
                steps = _steps_in(node, path, each["loc"])
                self.fault(node.line_of(steps), _describe(where, steps, each, model))
            return None

    def _complete(self, where: str, node: Node, entry: Entry) -> dict[str, Any] | None:
        if isinstance(entry, ChannelEntry | WindowEntry):
            if isinstance(entry, WindowEntry) and entry.all_monitors == bool(entry.monitors):
                self.fault(node.line, f"{where} needs either monitors, or all_monitors: true.")
            return entry.complete()
        assert isinstance(entry, MonitorEntry), "there are three sections"
        for name in entry.foreign_members():
            self.fault(
                node.line_of((name,)), f"{where}: {name} does not belong to the kind {entry.kind}; leave it out."
            )
        self._check_target(where, node, entry)
        for place, assertion in enumerate(entry.assertions):
            try:
                parse(assertion, entry.kind)
            except ValueError as error:
                self.fault(node.line_of(("assertions", place)), f"{where}: the assertion cannot be read. {error}")
        options = self._validate(where, node, OPTIONS[entry.kind], entry.options, ("options",))
        return None if options is None else entry.complete(options.model_dump(mode="json"))

    def _check_target(self, where: str, node: Node, entry: MonitorEntry) -> None:
        if entry.kind == HEARTBEAT:
            return
        if entry.target is None:
            self.fault(node.line, f"{where}: target is required.")
            return
        try:
            KINDS[entry.kind].read_target(entry.target)
        except ValueError as error:
            self.fault(node.line_of(("target",)), f"{where}: the target cannot be used. {error!s}")

    def _refuse_plain_secrets(self, where: str, key: str, node: Node) -> None:
        auth: Any = node.plain()
        for step in ("options", "auth"):
            auth = auth.get(step) if isinstance(auth, dict) else None
        for name in SECRETS & set(auth if isinstance(auth, dict) else ()):
            if "${" not in str(auth[name]):
                self.fault(
                    node.line_of(("options", "auth", name)),
                    f"{where}: a secret does not belong into a file. Put it into the environment, and write "
                    f"{name}: ${{{variable_name(key, name)}}}",
                )


def _written(raw: Mapping[str, Any]) -> Iterator[Path]:
    for name, value in raw.items():
        yield from ((name, member) for member in value) if name == "options" else [(name,)]


def _is_secret(path: Path) -> bool:
    return path[:2] == ("options", "auth") and path[-1] in SECRETS


def _not_set(names: tuple[str, ...]) -> str:
    return f"the environment variable {' and '.join(names)} is not set."


def _steps_in(node: Node, path: Path, where: tuple[int | str, ...]) -> Path:
    """Return a fault's path as it is in the file: of a union pydantic names the member that it took as well."""
    steps = list(path)
    value: Any = node.plain()
    for step in path:
        value = value.get(step, {})
    for place, step in enumerate(where):
        last = place == len(where) - 1
        if isinstance(value, dict) and step not in value and not last:
            continue
        steps.append(step)
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
    return tuple(steps)


def _describe(where: str, steps: Path, found: Any, model: type[BaseModel]) -> str:
    place = ".".join(map(str, (where, *steps)))
    if found["type"] == "extra_forbidden":
        name = str(steps[-1])
        known = list(model.model_fields) if len(steps) - len(found["loc"]) in (0, 1) and len(found["loc"]) == 1 else []
        return f"{place} is not known{_or_rather(name, known) if known else '.'}"
    if found["type"] in _WORDS:
        return f"{place} {_WORDS[found['type']]}"
    words = found["msg"].removeprefix("Value error, ")
    return f"{place}: {words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"
