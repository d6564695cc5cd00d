"""An organisation as a file that `apply` would change nothing for. Defaults are left out."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from server.cli.documents import Problem, UnusableFile, write_document
from server.cli.entries import HEARTBEAT, MonitorEntry
from server.cli.planning import complete_options
from server.cli.resources import SECRETS, TRAITS, Actual, Found, Section
from server.cli.variables import escape, variable_name

_WINDOW_DEFAULTS: Mapping[str, Any] = {
    "description": None,
    "all_monitors": False,
    "time_zone": "UTC",
    "recurrence": None,
}
_SECRETS_OF = {"basic": "password", "bearer": "token", "header": "value"}


def export(actual: Actual) -> str:
    """Write an organisation as YAML. Raises UnusableFile where names stand twice: nothing could be found again."""
    problems = [
        Problem(
            0,
            f"{times} {TRAITS[section].noun}s have the name {name!r}. Things are found again by their names: rename "
            "all but one.",
        )
        for section, found in actual.items()
        for name, times in Counter(each.name for each in found).items()
        if times > 1
    ]
    if problems:
        raise UnusableFile(problems)
    keys = {section: make_keys([each.name for each in found]) for section, found in actual.items()}
    document = {
        str(section): {
            key: _entry(each, key, _key_by_id(actual, keys)) for key, each in zip(keys[section], found, strict=True)
        }
        for section, found in actual.items()
    }
    variables = sorted(_variables(document))
    return _head(variables) + write_document(document)


def _head(variables: list[str]) -> str:
    lines = ["# Made by `python -m server.cli export`. What is left out has its default."]
    if variables:
        lines += ["# Secrets are never shown. These variables are needed where one is to be sent:"]
        lines += [f"#   {name}" for name in variables]
    return "\n".join(lines) + "\n"


def _variables(document: Mapping[str, Any]) -> set[str]:
    auths = (entry.get("options", {}).get("auth", {}) for entry in document.get(Section.MONITORS, {}).values())
    return {auth[name][2:-1] for auth in auths for name in SECRETS & set(auth)}


def _key_by_id(actual: Actual, keys: Mapping[Section, list[str]]) -> dict[str, str]:
    monitors = actual.get(Section.MONITORS, [])
    return {each.id: key for key, each in zip(keys.get(Section.MONITORS, []), monitors, strict=True)}


def make_keys(names: list[str]) -> list[str]:
    """Make keys of names: lower case, ASCII, dashes; each once."""
    taken: set[str] = set()
    keys = []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        stem = re.sub(r"[^a-z0-9]+", "-", plain)[:80].strip("-") or "item"
        key, number = stem, 2
        while key in taken:
            key, number = f"{stem}-{number}", number + 1
        taken.add(key)
        keys.append(key)
    return keys


def _entry(found: Found, key: str, key_by_id: Mapping[str, str]) -> dict[str, Any]:
    named: dict[str, Any] = {} if found.name == key else {"name": escape(found.name)}
    fields = {name: escape(value) for name, value in found.fields.items()}
    if found.section is Section.CHANNELS:
        return named | {"url": fields["url"]}
    if found.section is Section.WINDOWS:
        monitors = [key_by_id[each] for each in fields["monitor_ids"] if each in key_by_id]
        rest = {name: fields[name] for name, default in _WINDOW_DEFAULTS.items() if fields[name] != default}
        moments = {name: fields[name] for name in ("starts_at", "ends_at")}
        return named | ({"monitors": monitors} if monitors else {}) | moments | rest
    return named | _monitor(fields, key) | _depends_on(found, key_by_id)


def _depends_on(found: Found, key_by_id: Mapping[str, str]) -> dict[str, Any]:
    parents = [key_by_id[each] for each in found.fields.get("depends_on") or [] if each in key_by_id]
    return {"depends_on": parents} if parents else {}


def _monitor(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    kind = fields["kind"]
    if kind == HEARTBEAT:
        entry = {"kind": kind} | ({"slug": fields["slug"]} if fields.get("slug") else {})
    else:
        known = MonitorEntry.model_construct(kind=kind, interval_seconds=fields["interval_seconds"])
        defaults = known.complete({}) | {"target": None, "options": None}
        entry = {} if kind == "http" else {"kind": kind}
        entry |= {
            name: fields[name]
            for name, default in defaults.items()
            if name in fields and name not in ("kind", "options", "interval_seconds") and fields[name] != default
        }
        if fields["interval_seconds"] != 60:
            entry["interval_seconds"] = fields["interval_seconds"]
    if fields.get("paused"):
        entry["paused"] = True
    options = _options(kind, fields.get("options") or {}, key)
    return entry | ({"options": options} if options else {})


def _options(kind: str, options: Mapping[str, Any], key: str) -> dict[str, Any]:
    defaults = complete_options(kind, {})
    if kind == HEARTBEAT and options.get("cron"):
        defaults["period_seconds"] = None
    whole = complete_options(kind, options)
    told = {name: value for name, value in whole.items() if value != defaults.get(name)}
    if auth := told.get("auth"):
        secret = _SECRETS_OF[auth["type"]]
        shown = {name: auth[name] for name in ("type", "username", "name") if name in auth}
        told["auth"] = shown | {secret: f"${{{variable_name(key, secret)}}}"}
    return told
