"""What has to be done so that an organisation is what a file says. Pure: no I/O, no clock.

A thing is found again by its name within its section, or by `renamed_from` where it was called otherwise.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import ValidationError

from server.cli.documents import Path, Problem
from server.cli.entries import OPTIONS, in_utc
from server.cli.resources import TRAITS, Actual, Desired, Found, Reference, Section, Wanted, public_auth

_AUTH: Path = ("options", "auth")
_MISSING = object()


class ImpossiblePlan(Exception):
    """A file and an organisation do not go together. `problems`: each with its line, 0 where it is not the file's."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems))
        self.problems = sorted(set(problems))


class Made(NamedTuple):
    """The id of a monitor that the plan has yet to make, by its key."""

    key: str


class Action(StrEnum):
    """What a step does. A thing is replaced by making the new one and deleting the old one at the end."""

    CREATE = "create"
    CHANGE = "change"
    REPLACE = "replace"
    DELETE = "delete"


class Change(NamedTuple):
    """One value that becomes another. `hidden`: it is from the environment, or a secret, and never shown."""

    path: Path
    before: Any
    after: Any
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `body` is what to send; an id in it may be Made. `wanted` is None where the file has none."""

    action: Action
    section: Section
    name: str
    wanted: Wanted | None = None
    found: Found | None = None
    changes: tuple[Change, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def destroys(self) -> bool:
        """Tell whether something is lost for good."""
        return self.action in (Action.DELETE, Action.REPLACE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in their order; how many things stay as they are; and what the file has not, yet is kept.

    `removals` are the steps that delete something, in the order in which that goes; those that replace are among them.
    """

    steps: tuple[Step, ...]
    unchanged: int
    removals: tuple[Step, ...] = ()
    kept: tuple[Found, ...] = ()
    emptied: tuple[Section, ...] = ()  # sections that had something of which nothing would be left


def make_plan(desired: Desired, actual: Actual, *, keeps: bool = False, sends_secrets: bool = False) -> Plan:
    """Compare a file with an organisation. Raises ImpossiblePlan.

    `keeps`: what the file has not stays. `sends_secrets`: send those again that cannot be compared.
    """
    return _Planner(desired, actual, keeps, sends_secrets).plan()


class _Planner:
    def __init__(self, desired: Desired, actual: Actual, keeps: bool, sends_secrets: bool) -> None:
        self._desired = desired
        self._actual = actual
        self._keeps = keeps
        self._sends_secrets = sends_secrets
        self._problems: list[Problem] = []
        monitors = desired.get(Section.MONITORS, [])
        self._entries = {each.key: each for each in monitors}
        self._keys = {each.name: each.key for each in monitors} | {key: key for key in self._entries}
        self._pairs = {section: self._pair(section, wanted) for section, wanted in desired.items()}
        self._names = {each.id: each.name for each in actual.get(Section.MONITORS, [])}

    def plan(self) -> Plan:
        steps: list[Step] = []
        surplus: list[Found] = []
        unchanged = 0
        for section in (each for each in Section if each in self._desired):
            for wanted in self._in_order(section):
                step = self._step(wanted, self._pairs[section][wanted.key])
                unchanged += step is None
                steps += [step] if step else []
            taken = {found.id for found in self._pairs[section].values() if found}
            surplus += [found for found in self._actual.get(section, []) if found.id not in taken]
        if self._problems:
            raise ImpossiblePlan(self._problems)
        doomed = [] if self._keeps else [Step(Action.DELETE, each.section, each.name, found=each) for each in surplus]
        removals = _children_first([step for step in (*steps, *doomed) if step.destroys])
        return Plan(
            (*steps, *(step for step in removals if step.action is Action.DELETE)),
            unchanged,
            removals=tuple(removals),
            kept=tuple(surplus) if self._keeps else (),
            emptied=tuple(section for section in self._desired if self._is_emptied(section, doomed)),
        )

    def _is_emptied(self, section: Section, doomed: list[Step]) -> bool:
        return 0 < sum(step.section is section for step in doomed) == len(self._actual.get(section, []))

    def _fault(self, line: int, detail: str) -> None:
        self._problems.append(Problem(line, detail))

    def _pair(self, section: Section, wanted: list[Wanted]) -> dict[str, Found | None]:
        """Find for each entry, by its key, what the organisation has of it."""
        actual = self._actual.get(section, [])
        for name, times in Counter(found.name for found in actual).items():
            if times > 1:
                self._fault(
                    0,
                    f"The organisation has {times} {TRAITS[section].noun}s named {name!r}. Things are found again by "
                    "their names: rename or delete all but one.",
                )
        by_name = {found.name: found for found in actual}
        pairs = {each.key: self._find(each, by_name) for each in wanted}
        claims = Counter(found.id for found in pairs.values() if found)
        for each in wanted:
            found = pairs[each.key]
            if found and claims[found.id] > 1:
                self._fault(each.line, f"{section}.{each.key}: {found.name!r} is claimed by more than one entry.")
        return pairs

    def _find(self, wanted: Wanted, by_name: Mapping[str, Found]) -> Found | None:
        before = by_name.get(wanted.renamed_from) if wanted.renamed_from else None
        now = by_name.get(wanted.name)
        if before and now and before is not now:
            self._fault(
                wanted.line,
                f"{wanted.section}.{wanted.key}: there are both {wanted.renamed_from!r} and {wanted.name!r}. "
                "Take renamed_from away, or delete one of them.",
            )
        return now or before

    def _in_order(self, section: Section) -> list[Wanted]:
        """Return a section's entries; monitors after those that they depend on.

        Done in this order no step makes a circle of what was and what will be: whatever is done depends on done things.
        """
        entries = self._desired[section]
        if section is not Section.MONITORS:
            return list(entries)
        parents = {
            each.key: [self._keys[reference.text] for reference in each.references if reference.text in self._keys]
            for each in entries
        }
        ordered: dict[str, Wanted] = {}
        for each in entries:
            if each.key not in ordered:
                self._visit(each.key, parents, ordered)
        return list(ordered.values())

    def _visit(self, start: str, parents: dict[str, list[str]], ordered: dict[str, Wanted]) -> None:
        """Walk down without recursion: chains may be longer than Python's stack."""
        way: dict[str, Iterator[str]] = {start: iter(parents[start])}
        while way:
            key = next(reversed(way))
            parent = next(way[key], None)
            if parent is None:
                way.pop(key)
                ordered[key] = self._entries[key]
            elif parent in way:
                circle = [*list(way)[list(way).index(parent) :], parent]
                words = f"These monitors depend on each other in a circle: {' ► '.join(circle)}."
                self._fault(self._entries[parent].line, words)
            elif parent not in ordered:
                way[parent] = iter(parents[parent])

    def _resolve(self, wanted: Wanted, reference: Reference) -> str | Made:
        """Return the id of the monitor that is meant, or which is to be made."""
        if key := self._keys.get(reference.text):
            found = self._pairs[Section.MONITORS][key]
            return found.id if found and not _is_replaced(self._entries[key], found) else Made(key)
        outside = [found.id for found in self._actual.get(Section.MONITORS, []) if found.name == reference.text]
        if not outside:
            words = "is no monitor of the file or of the organisation"
        elif len(outside) > 1:
            words = "is the name of several monitors"
        elif Section.MONITORS in self._desired and not self._keeps:
            words = "is not in the file, so that it would be deleted"
        else:
            return outside[0]
        self._fault(reference.line, f"{wanted.section}.{wanted.key}: {reference.text!r} {words}.")
        return ""

    def _step(self, wanted: Wanted, found: Found | None) -> Step | None:
        fields = dict(wanted.fields)
        if reference := TRAITS[wanted.section].reference:
            ids = [self._resolve(wanted, each) for each in wanted.references]
            fields[reference] = list(dict.fromkeys(ids))
        if found is None or _is_replaced(wanted, found):
            action = Action.CREATE if found is None else Action.REPLACE
            self._require_secrets(wanted)
            return Step(
                action, wanted.section, wanted.name, wanted, found, self._all(wanted, fields, found), body=fields
            )
        changes = tuple(self._differences(wanted, fields, found))
        if not changes:
            return None
        body = _patch(changes, wanted, fields)
        return Step(Action.CHANGE, wanted.section, wanted.name, wanted, found, changes, body)

    def _all(self, wanted: Wanted, fields: dict[str, Any], found: Found | None) -> tuple[Change, ...]:
        """Return what a new thing will be, as far as the file says it; of one that replaces another, what differs."""
        if found is not None:
            return tuple(self._differences(wanted, fields, found))
        flat = _flatten(self._named(wanted.section, _shown(wanted.section, fields)))
        reference = (TRAITS[wanted.section].reference,)
        told = {
            path: after for path, after in flat.items() if {path[:1], path[:2]} & wanted.written or path == reference
        }
        return tuple(Change(path, None, after, self._is_hidden(wanted, path)) for path, after in told.items())

    def _differences(self, wanted: Wanted, fields: dict[str, Any], found: Found) -> Iterator[Change]:
        if wanted.name != found.name:
            yield Change(("name",), found.name, wanted.name)
        after = _shown(wanted.section, fields)
        before = _comparable(wanted.section, found.fields, after)
        flat_before = _flatten(self._named(wanted.section, before))
        flat_after = _flatten(self._named(wanted.section, after))
        for path in {**flat_after, **flat_before}:
            old, new = flat_before.get(path, _MISSING), flat_after.get(path, _MISSING)
            if old != new:
                old, new = (None if each is _MISSING else each for each in (old, new))
                yield Change(path, old, new, self._is_hidden(wanted, path))
        auth = fields.get("options", {}).get("auth")
        if auth and self._sends_secrets:
            yield Change((*_AUTH, "secret"), None, None, hidden=True)
        if auth and (self._sends_secrets or after["options"]["auth"] != before["options"]["auth"]):
            self._require_secrets(wanted)

    def _require_secrets(self, wanted: Wanted) -> None:
        for path, complaint in wanted.unset.items():
            line = wanted.node.line_of(path)
            self._fault(line, f"{wanted.section}.{wanted.key}.{'.'.join(map(str, path))}: {complaint}")

    def _named(self, section: Section, fields: dict[str, Any]) -> dict[str, Any]:
        """Return fields in which monitors are called by their names, so that people see whom they are."""
        reference = TRAITS[section].reference
        if reference is None or reference not in fields:
            return fields
        names = [
            f"{each.key} (new)" if isinstance(each, Made) else self._names.get(each, each) for each in fields[reference]
        ]
        return fields | {reference: sorted(names)}

    def _is_hidden(self, wanted: Wanted, path: Path) -> bool:
        own = wanted.from_environment
        return any(path[: len(each)] == each or each[: len(path)] == path for each in own)


def _is_replaced(wanted: Wanted, found: Found) -> bool:
    fixed = TRAITS[wanted.section].fixed
    if fixed is None:
        return wanted.name != found.name or any(wanted.fields[name] != found.fields.get(name) for name in wanted.fields)
    return any(wanted.fields[name] != found.fields.get(name) for name in fixed)


def _shown(section: Section, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as the API shows them: without secrets."""
    shown = dict(fields)
    if section is Section.MONITORS and "options" in shown:
        options = dict(shown["options"])
        if "auth" in options:
            options["auth"] = public_auth(options["auth"])
        shown["options"] = options
    return shown


def _comparable(section: Section, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return of what the API showed that which the file speaks of, spelled as the file spells it."""
    fields = {name: found.get(name) for name in wanted}
    if section is Section.WINDOWS:
        moments = {name: in_utc(datetime.fromisoformat(str(fields[name]))) for name in ("starts_at", "ends_at")}
        return fields | moments
    if section is Section.MONITORS:
        options = complete_options(found["kind"], found.get("options") or {})
        shown = {name: options.get(name) for name in wanted["options"]}
        if "auth" in shown:
            shown["auth"] = public_auth(shown["auth"])
        fields["options"] = shown
    return fields


def complete_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the defaults of what they leave out; as they are where this program does not know better."""
    told = {name: value for name, value in options.items() if name != "auth"}
    auth = {"auth": options["auth"]} if "auth" in options else {}
    try:
        return OPTIONS[kind].model_validate(told).model_dump(mode="json") | auth
    except (KeyError, ValidationError):
        return dict(options)


def _flatten(fields: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Return values by their paths; within lists nothing is told apart, and an empty mapping is no value."""
    flat: dict[Path, Any] = {}
    for name, value in fields.items():
        flat |= _flatten(value, (*path, name)) if isinstance(value, Mapping) else {(*path, name): value}
    return flat


def _patch(changes: tuple[Change, ...], wanted: Wanted, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch (RFC 7396) of some changes; of credentials the whole, of references their ids."""
    patch: dict[str, Any] = {}
    for change in changes:
        name, *within = map(str, change.path)
        if name == "name":
            patch["name"] = wanted.name
        elif change.path[:2] == _AUTH:
            patch.setdefault("options", {})["auth"] = fields["options"]["auth"]
        elif within:
            members = patch.setdefault(name, {})
            for step in within[:-1]:
                members = members.setdefault(step, {})
            members[within[-1]] = change.after
        else:
            patch[name] = fields[name]
    return patch


def _children_first(doomed: list[Step]) -> list[Step]:
    """Order deletions: windows, then monitors before those that they depend on, then channels.

    Deleting a parent changes its children, and would so contradict what is known of them.
    """
    order = list(Section)[::-1]
    monitors = {step.found.id: step for step in doomed if step.found and step.section is Section.MONITORS}
    left = {
        key: {each for each in step.found.fields.get("depends_on") or [] if each in monitors} if step.found else set()
        for key, step in monitors.items()
    }
    ranked: dict[str, Step] = {}
    while left:
        leaves = [key for key in left if not any(key in parents for parents in left.values())] or list(left)
        for key in leaves:
            left.pop(key)
            ranked[key] = monitors[key]
    others = [step for step in doomed if step.section is not Section.MONITORS]
    return [step for section in order for step in (*ranked.values(), *others) if step.section is section]
