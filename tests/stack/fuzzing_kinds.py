"""What no JSON Schema says of a monitor's settings, for fuzzing_hooks.py: targets, options and assertions that fit.

As there: a well-formed value comes in the place of a well-formed value, and what is malformed stays as it is.
"""

import re
from typing import Any

TARGETS = {
    "http": "http://127.0.0.1:1/",
    "tcp": "127.0.0.1:1",
    "tls": "127.0.0.1:1",
    "dns": "example.com",
    "icmp": "127.0.0.1",
}
_ASSERTION = "response_ms < 800"
_RESOLVER = "127.0.0.1:1"  # nobody: no test asks a name server elsewhere
_FORMS = {
    "http": re.compile(r"[Hh][Tt]{2}[Pp][Ss]?://[^\s\x00-\x1f\x7f-\x9f/?#@]+([/?#][^\s\x00-\x1f\x7f-\x9f]*)?"),
    "tcp": re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):[0-9]{1,5}"),
    "tls": re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):[0-9]{1,5}"),
    "dns": re.compile(r"[^\s/]+"),
    "icmp": re.compile(r"[^\s/]+"),
}
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RANGE = re.compile(r"([1-5][0-9]{2})-([1-5][0-9]{2})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NULL_IN_HEARTBEATS = {
    "target": TARGETS["http"],
    "interval_seconds": 86_400,
    "timeout_seconds": 1,
    "retry_interval_seconds": 1,
    "fail_threshold": 1,
    "recover_threshold": 1,
}


def keep_to_every_kind(change: dict[str, Any]) -> None:
    """Take out of a change what not every monitor has, in place, where nobody knows here which kind it is of."""
    for name in change.keys() - {"name", "paused", "depends_on"}:
        del change[name]
    change.setdefault("paused", True)


def complete_kind(settings: dict[str, Any], *, is_change: bool) -> None:
    """Complete the settings of one monitor, in place. What is changed is an http monitor."""
    if is_change:
        _complete_change(settings)
    kind = settings.get("kind", "http")
    if not isinstance(kind, str):
        return
    _complete_target(settings, kind)
    assertions, parents = settings.get("assertions"), settings.get("depends_on")
    if kind in TARGETS and isinstance(assertions, list):
        settings["assertions"] = [_ASSERTION if _is_text(each, 1, 1000) else each for each in assertions]
    if isinstance(parents, list) and all(isinstance(each, str) and _UUID.fullmatch(each) for each in parents):
        settings["depends_on"] = []
    if kind == "dns":
        settings.setdefault("options", {})
        given = settings.get("timeout_seconds", 10)
        if type(given) is int and 1 <= given <= 10:
            settings["timeout_seconds"] = 1  # nobody answers, and a preview waits for it
    if isinstance(options := settings.get("options"), dict):
        _COMPLETE.get(kind, lambda _: None)(options)


def _complete_change(settings: dict[str, Any]) -> None:
    for name, value in _NULL_IN_HEARTBEATS.items():
        if name in settings and settings[name] is None:
            settings[name] = value
    if _is_text(settings.get("target"), 0, 2048):
        settings["target"] = TARGETS["http"]
    if isinstance(settings.get("options"), dict):
        settings["options"] = {}
    if isinstance(settings.get("slug"), str) and re.fullmatch("[a-z0-9_-]{1,100}", settings["slug"]):
        settings["slug"] = None


def _complete_target(settings: dict[str, Any], kind: str) -> None:
    target = settings.get("target")
    if kind in _FORMS and isinstance(target, str) and len(target) <= 2048 and _FORMS[kind].fullmatch(target):
        settings["target"] = TARGETS[kind]


def _complete_http(options: dict[str, Any]) -> None:
    if isinstance(statuses := options.get("expected_status"), list):
        options["expected_status"] = [_upwards(text) for text in statuses]
    headers = options.get("headers")
    if isinstance(headers, dict) and all(_FIELD_NAME.fullmatch(name) for name in headers):
        options["headers"] = {f"X-{number}": value for number, value in enumerate(headers.values())}
    if options.get("method") == "HEAD" and isinstance(options.get("body"), str):
        options["method"] = "POST"
    auth = options.get("auth")
    if isinstance(auth, dict) and _is_text(auth.get("name"), 1, 100) and _FIELD_NAME.fullmatch(auth["name"]):
        auth["name"] = "X-Key"


def _complete_tls(options: dict[str, Any]) -> None:
    if _is_text(options.get("server_name"), 1, 253):
        options["server_name"] = "example.com"


def _complete_dns(options: dict[str, Any]) -> None:
    if options.get("resolver") is None or _is_text(options["resolver"], 2, 64):
        options["resolver"] = _RESOLVER


def _complete_heartbeat(options: dict[str, Any]) -> None:
    if _is_text(options.get("cron"), 9, 100):
        options["cron"] = "30 2 * * 1-5" if options.get("period_seconds") is None else None
    if _is_text(options.get("timezone"), 0, 100):
        options["timezone"] = "Europe/Berlin"


_COMPLETE = {
    "http": _complete_http,
    "tls": _complete_tls,
    "dns": _complete_dns,
    "heartbeat": _complete_heartbeat,
}


def _is_text(value: Any, shortest: int, longest: int) -> bool:
    return isinstance(value, str) and shortest <= len(value) <= longest and "\0" not in value


def _upwards(text: Any) -> Any:
    found = _RANGE.fullmatch(text) if isinstance(text, str) else None
    return "-".join(sorted(found.groups())) if found else text
