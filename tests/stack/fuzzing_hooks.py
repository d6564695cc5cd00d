"""What Schemathesis is told before each call: what a JSON Schema cannot say, and what must not leave this machine.

A well-formed value is put in the place of a well-formed value, in requests that are meant to be right and in those that
are meant to be wrong alike, so that a wrong one is refused for what is wrong with it. What is malformed stays as it is.
`world.json` in the working folder says what there is (tests/stack/test_schemathesis.py).
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.generation.meta import TestPhase

from server.app import all_operations
from server.features.audit.rules import Position as AuditPosition
from server.http.fields import URL_PATTERN
from server.http.pagination import Order, PageQuery, Position
from tests.stack.fuzzing_kinds import TARGETS, complete_kind, keep_to_every_kind

WORLD = json.loads(Path("world.json").read_text())
OPERATIONS = {operation.name: operation for operation in all_operations()}
# Routes that take away what the path names, each with which of the things that are there to spare.
TAKERS = {
    "delete_org": "org_id",
    "transfer_org": "given_org_id",
    "leave_org": "joined_org_id",
    "delete_monitor": "monitor_id",
    "delete_channel": "channel_id",
    "rotate_api_key": "key_id",
    "revoke_api_key": "key_id",
    "revoke_invitation": "invitation_id",
    "remove_member": "user_id",
    "acknowledge_incident": "incident_id",
    "resolve_incident": "incident_id",
    "delete_maintenance_window": "window_id",
}
# Where the organisation may be left out by those who have one alone.
OF_ONE_ORGANISATION = {
    *("create_monitor", "create_monitors", "create_channel", "create_api_key", "create_maintenance_window"),
    *("read_usage", "list_audit", "export_audit", "read_sla_report"),
}
A_TIME, A_TIME_AFTER, A_TIME_TO_COME = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2100-01-01T00:00:00Z"
# A window as no schema can say it: it begins before it ends, soon after, and recurs by a rule of RFC 5545.
A_WINDOW = {"starts_at": "2030-01-12T01:00:00Z", "ends_at": "2030-01-12T03:00:00Z"}
_LONGEST_SECONDS = {"interval_seconds": 86_400, "timeout_seconds": 60, "retry_interval_seconds": 86_400}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ETAG = re.compile(r'"[!#-~]*"')
_KEY = re.compile(r"[!-~]{1,255}")
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,2000}")
_AUDIT_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,200}")
_POSITION = re.compile(r"[A-Za-z0-9_-]{23}")
_ZONE = re.compile(r"[A-Za-z0-9_+/-]{1,64}")
_WORDS = re.compile(r"[^\0]{1,500}", re.DOTALL)
_TOKEN = re.compile(r"[^\0]{1,200}", re.DOTALL)
_URL = re.compile(URL_PATTERN)
_MOMENT = re.compile(
    r"2[01][0-9]{2}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


@schemathesis.hook
def before_call(context: HookContext, case: "Case[Any]", kwargs: dict[str, Any]) -> None:
    """Complete a case, in place."""
    name = case.operation.definition.raw["operationId"]
    is_right = case.meta is not None and case.meta.generation.mode.is_positive
    if _is_like(_KEY, case.headers.get("Idempotency-Key")):
        # A key is for one request: what another one with it is answered, tests/stack/test_idempotency.py says.
        case.headers["Idempotency-Key"] = str(uuid4())
    if _is_like(_ETAG, case.headers.get("If-Match")) and next(_EVERY_OTHER["If-Match"]):
        case.headers["If-Match"] = "*"
    # To whoever asks for what is not there, 404 is the one answer: every other case asks for what is.
    finds = not _continues_another(case) and next(_EVERY_OTHER[name])
    if finds:
        _complete_path(name, case.path_parameters)
    _protect_what_is_kept(name, case.path_parameters)
    if OPERATIONS[name].query is not None:
        _complete_query(name, case.query, is_right=is_right)
    if isinstance(case.body, dict):
        if name == "update_monitor" and is_right and _continues_another(case):
            keep_to_every_kind(case.body)
        _complete_body(name, case.body, is_right=is_right)
        if name == "transfer_org" and _is_like(_UUID, case.body.get("user_id")):
            # Whoever is to own an organisation belongs to it.
            has_heir = case.path_parameters.get("org_id") in WORLD["spare"]["given_org_id"]
            case.body["user_id"] = WORLD["heir" if has_heir else "me"]


def _continues_another(case: "Case[Any]") -> bool:
    """Tell whether a case speaks of what an earlier case made, read or took away."""
    return case.meta is None or case.meta.phase.name == TestPhase.STATEFUL or bool(case.meta.pool_draws)


_EVERY_OTHER: defaultdict[str, Iterator[bool]] = defaultdict(lambda: cycle([True, False]))
_KEPT = {name: cycle(values) for name, values in WORLD["kept"].items()}
_SPARE = {name: cycle(values) for name, values in WORLD["spare"].items()}
_NOT_TO_BE_TAKEN = {WORLD["me"], *(each for values in WORLD["kept"].values() for each in values)}
_TOKENS = cycle(WORLD["tokens"])


def _complete_path(name: str, path: dict[str, Any]) -> None:
    last = list(path)[-1:]
    for parameter, value in path.items():
        is_taken = name in TAKERS and [parameter] == last
        if (is_taken or parameter in _KEPT) and (parameter == "asset" or _is_like(_UUID, value)):
            path[parameter] = next(_SPARE[TAKERS[name]] if is_taken else _KEPT[parameter])


def _protect_what_is_kept(name: str, path: dict[str, Any]) -> None:
    """Let nothing be taken away that the other routes are tried on, however a case came by its id."""
    if name in TAKERS and path and list(path.values())[-1] in _NOT_TO_BE_TAKEN:
        path[list(path)[-1]] = next(_SPARE[TAKERS[name]])
    if name == "change_member" and path.get("user_id") == WORLD["me"]:
        path["user_id"] = next(_KEPT["user_id"])


def _complete_query(name: str, query: dict[str, Any], *, is_right: bool) -> None:
    if is_right and name in OF_ONE_ORGANISATION:
        query.setdefault("org_id", WORLD["org"])
    if _is_like(_AUDIT_CURSOR if name == "list_audit" else _CURSOR, query.get("cursor")):
        query["cursor"] = _cursor_of(name, query)
    if _is_like(_POSITION, query.get("after")):
        query["after"] = WORLD["position"]
    if name in {"read_uptime", "read_series"}:
        _begin_before_end(query)
    if name == "read_sla_report" and _is_like(_ZONE, query.get("time_zone")):
        query["time_zone"] = "Europe/Berlin"


def _cursor_of(name: str, query: Mapping[str, Any]) -> str:
    """Return a cursor as the API might have given it out for this list, in this order."""
    model = OPERATIONS[name].query
    assert model is not None
    if not issubclass(model, PageQuery):
        return AuditPosition(datetime(2026, 1, 1, tzinfo=UTC), 1).encode()
    default = model.model_fields["order"].default if "order" in model.model_fields else "-created_at"
    order = str(query.get("order", default))
    return Position(order, "m" if Order.read(order).column == "name" else A_TIME, UUID(int=1)).encode()


def _begin_before_end(query: dict[str, Any]) -> None:
    """A window begins before it ends, and where nothing else is said it ends now."""
    if _is_like(_MOMENT, query.get("from")):
        query["from"] = A_TIME
        if _is_like(_MOMENT, query.get("to")):
            query["to"] = A_TIME_AFTER


def _complete_body(name: str, body: dict[str, Any], *, is_right: bool) -> None:
    if _is_like(_UUID, body.get("org_id")) or (is_right and name in OF_ONE_ORGANISATION and body.get("org_id") is None):
        body["org_id"] = WORLD["org"]
    if _is_like(_MOMENT, body.get("expires_at")):
        body["expires_at"] = A_TIME_TO_COME
    if _is_like(_TOKEN, body.get("token")) and next(_EVERY_OTHER["token"]):
        body["token"] = next(_TOKENS)
    if name in {"create_maintenance_window", "update_maintenance_window"}:
        _complete_window(body, is_change=name == "update_maintenance_window")
    drafts = body.get("monitors")
    for each in [body, *(drafts if isinstance(drafts, list) else [])]:
        if isinstance(each, dict):
            _complete_settings(each, is_change=name == "update_monitor")


def _complete_window(window: dict[str, Any], *, is_change: bool) -> None:
    if is_change and window.get("recurrence", "") is None:
        window.update(A_WINDOW)  # what recurs no more lies ahead
    if any(_is_like(_MOMENT, window.get(end)) for end in A_WINDOW):
        # Of a change, the end that it leaves out stands in the database, unknown here.
        window.update(
            {end: moment for end, moment in A_WINDOW.items() if is_change or _is_like(_MOMENT, window.get(end))}
        )
    if _is_like(_WORDS, window.get("recurrence")):
        window["recurrence"] = "FREQ=WEEKLY"
    if _is_like(_WORDS, window.get("time_zone")) and len(window["time_zone"]) <= 100:
        window["time_zone"] = "Europe/Berlin"
    says_whom = not is_change or not window.keys().isdisjoint({"all_monitors", "monitor_ids"})
    if says_whom and type(window.get("all_monitors", False)) is bool and _are_ids(window.get("monitor_ids", [])):
        window.update({"all_monitors": True, "monitor_ids": []})


def _are_ids(value: Any) -> bool:
    """Tell whether this is a list of ids, each once, as long as a window's may be."""
    return (
        isinstance(value, list)
        and len(value) <= 200
        and all(_is_like(_UUID, each) for each in value)
        and (len({each.lower() for each in value}) == len(value))
    )


def _complete_settings(settings: dict[str, Any], *, is_change: bool) -> None:
    # Previews go there at once, and no test leaves this machine.
    if _is_like(_URL, settings.get("url")) and len(settings["url"]) <= 2048:
        settings["url"] = TARGETS["http"]
    complete_kind(settings, is_change=is_change)
    _fit_times(settings, is_change=is_change)


def _fit_times(settings: dict[str, Any], *, is_change: bool) -> None:
    """No check takes longer than the interval; of a change, what it leaves out stands in the database, unknown here."""
    given = {name: settings[name] for name in _LONGEST_SECONDS if settings.get(name) is not None}
    if not given or any(type(value) not in (int, float) for value in given.values()):
        return
    if is_change:
        settings.update({"interval_seconds": 86_400, "timeout_seconds": 1, "retry_interval_seconds": 1} | given)
    interval = settings.get("interval_seconds") or 60
    for name in ("timeout_seconds", "retry_interval_seconds"):
        if 5 <= interval < (settings.get(name) or 0) <= _LONGEST_SECONDS[name]:
            settings[name] = interval


def _is_like(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None
