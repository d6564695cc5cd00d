"""Uptime Kuma's backup as a file of ours, with a word for everything that does not come along.

The backup is what version 1 writes (Settings, Backup, Export): `{"version", "notificationList", "monitorList"}`, each
monitor as `toJSON` of Uptime Kuma's server/model/monitor.js shows it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from server.cli.documents import UnusableFile, write_document
from server.cli.exporting import make_keys
from server.cli.reading import read_desired
from server.cli.variables import escape, variable_name
from server.features.monitors import rules
from server.probes.jsonpath import PathError, read_path

TLS_WARNING_DAYS = 7  # the latest of Uptime Kuma's own warnings: 7, 14 and 21 days before
_KINDS = {
    "http": "http",
    "keyword": "http",
    "json-query": "http",
    "port": "tcp",
    "ping": "icmp",
    "dns": "dns",
    "push": "heartbeat",
}
_NO_KIND = {
    "docker": "Tocsin does not look into Docker; watch a port or a page of the container instead",
    "group": "groups only order a list; where its members need something, say so with depends_on",
    "mqtt": "there is no check of this kind; a tcp check tells whether the broker answers",
    "real-browser": "there is no check with a browser; an http check with an assertion on the body comes near",
    "steam": "there is no check of game servers",
    "gamedig": "there is no check of game servers",
    "grpc-keyword": "there is no check of this kind; a tcp check tells whether the port answers",
    "kafka-producer": "there is no check of this kind; a tcp check tells whether the broker answers",
    "radius": "there is no check of this kind",
    "tailscale-ping": "there is no check of this kind; an icmp check goes from where the worker is",
}
_DATABASES = frozenset({"sqlserver", "postgres", "mysql", "mongodb", "redis"})
_INTERVALS = (5, 86_400)
_HEARTBEAT_PERIODS = (60, 31_536_000)
_JSONATA_NAME = r"(?:[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)"
_SIMPLE_PATH = re.compile(rf"\$?\.?{_JSONATA_NAME}(?:\[-?[0-9]+\])*(?:\.{_JSONATA_NAME}(?:\[-?[0-9]+\])*)*")
_PORT_OF_DNS = 53


class Loss(NamedTuple):
    """Something that does not come along. `is_whole`: the whole monitor stays behind."""

    monitor: str
    reason: str
    is_whole: bool = False


class NotABackup(Exception):
    """A document that is not Uptime Kuma's backup, and what was expected."""


@dataclass(slots=True)
class Converted:
    """The file, what does not come along, and the secrets that the file takes from variables."""

    document: dict[str, Any]
    losses: list[Loss]
    secrets: dict[str, str] = field(repr=False)


def read_backup(text: str) -> dict[str, Any]:
    """Read a backup. Raises NotABackup."""
    try:
        backup = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotABackup(f"This is not JSON: {error}") from None
    monitors = backup.get("monitorList") if isinstance(backup, dict) else None
    if not isinstance(monitors, list) or not all(isinstance(each, dict) for each in monitors):
        raise NotABackup(
            "This is not a backup of Uptime Kuma: a JSON object with monitorList is expected, as version 1 exports it "
            "under Settings, Backup. Version 2 has no such export: export with 1.23 before you upgrade."
        )
    return dict(backup)


def convert(backup: Mapping[str, Any]) -> Converted:
    """Turn a backup into a file. Names that stand twice get a number, since a file finds things by their names."""
    converted = Converted({}, [], {})
    monitors = backup["monitorList"]
    names = _unique_names([str(each.get("name") or "").strip()[:190] or "Monitor" for each in monitors])
    entries: dict[str, Any] = {}
    for monitor, name, key in zip(monitors, names, make_keys(names), strict=True):
        one = _Monitor(monitor, name, key)
        entry = one.convert_readable()
        if entry:
            entries[key] = entry
            converted.secrets |= one.secrets
        converted.losses += one.losses
    converted.document["monitors"] = entries
    for each in backup.get("notificationList") or []:
        converted.losses.append(Loss(*_describe_notification(each), True))
    return converted


def _unique_names(names: list[str]) -> list[str]:
    taken: set[str] = set()
    unique = []
    for name in names:
        free, number = name, 2
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        taken.add(free)
        unique.append(free)
    return unique


def _describe_notification(notification: Any) -> tuple[str, str]:
    name = notification.get("name", "?") if isinstance(notification, dict) else "?"
    try:
        kind = json.loads(notification["config"])["type"]
    except (KeyError, TypeError, ValueError):
        kind = "of an unknown kind"
    return f"notification {name}", f"it is {kind}; add a channel for it: every channel is told of every monitor"


class _Monitor:
    """One monitor of the backup, on its way. `losses` and `secrets` are what comes up meanwhile."""

    def __init__(self, monitor: Mapping[str, Any], name: str, key: str) -> None:
        self._monitor = monitor
        self._name = name
        self._key = key
        self.losses: list[Loss] = []
        self.secrets: dict[str, str] = {}

    def convert_readable(self) -> dict[str, Any] | None:
        """Return the entry; None where nothing of ours does what this monitor does, or where it is malformed."""
        entry = self._convert()
        if entry is None:
            return None
        entry = {"name": escape(self._name)} | entry
        try:
            read_desired(write_document({"monitors": {self._key: entry}}), self.secrets)
        except UnusableFile as error:
            self._give_up(" ".join(problem.detail for problem in error.problems))
            return None
        if self._name != str(self._monitor.get("name") or "").strip():
            self._lose(f"its name: things are found again by their names, so it is now {self._name!r}")
        return entry

    def _convert(self) -> dict[str, Any] | None:
        kind = str(self._monitor.get("type"))
        if kind not in _KINDS:
            words = "databases are not logged in to; a tcp check tells whether the port answers"
            self._give_up(f"type {kind}: {words if kind in _DATABASES else _NO_KIND.get(kind, 'it is not known here')}")
            return None
        if self._monitor.get("upsideDown"):
            self._give_up("upside down: there is no check that is up when it fails")
            return None
        makers: Mapping[str, Callable[[], dict[str, Any] | None]] = {
            "http": self._http,
            "tcp": self._tcp,
            "icmp": self._icmp,
            "dns": self._dns,
            "heartbeat": self._heartbeat,
        }
        own = makers[_KINDS[kind]]()
        if own is None:
            return None
        self._note_what_stays()
        times = {} if _KINDS[kind] == "heartbeat" else self._times()
        paused = {} if self._monitor.get("active", True) else {"paused": True}
        entry = own | times | paused
        return {name: escape(value) if name != "options" else value for name, value in entry.items()}

    def _lose(self, reason: str) -> None:
        self.losses.append(Loss(self._name, reason))

    def _give_up(self, reason: str) -> None:
        self.losses.append(Loss(self._name, reason, is_whole=True))

    def _number(self, name: str, default: int) -> int:
        value = self._monitor.get(name)
        return int(value) if isinstance(value, (int, float)) and value > 0 else default

    def _within(self, value: int, bounds: tuple[int, int], what: str) -> int:
        kept = min(max(value, bounds[0]), bounds[1])
        if kept != value:
            self._lose(f"{what} of {value} s became {kept} s, which is as far as it goes")
        return kept

    def _times(self) -> dict[str, Any]:
        """Return intervals and thresholds. Kuma retries `maxretries` times before it says down."""
        interval = self._within(self._number("interval", 60), _INTERVALS, "an interval")
        retry = self._number("retryInterval", interval)
        default_timeout = rules.default_timeout(interval)
        timeout = min(self._number("timeout", default_timeout), 60, interval)
        retries = self._number("maxretries", 0)
        if retries > 19:
            self._lose(f"{retries} retries became 19, which is as far as it goes")
        times = {
            "interval_seconds": interval,
            "timeout_seconds": timeout,
            "retry_interval_seconds": min(retry, interval),
            "fail_threshold": min(retries, 19) + 1,
        }
        if retry > interval and retries:
            self._lose(f"a retry interval of {retry} s became {interval} s: it is at most the interval")
        defaults = (60, default_timeout, rules.retry_interval(interval), 2)
        return {name: value for (name, value), default in zip(times.items(), defaults, strict=True) if value != default}

    def _note_what_stays(self) -> None:
        monitor = self._monitor
        if monitor.get("parent"):
            self._lose("its group")
        if monitor.get("description"):
            self._lose("its description: monitors have none")
        if monitor.get("tags"):
            self._lose("its tags: monitors have none")
        if monitor.get("resendInterval"):
            self._lose("repeated notifications while it is down: an incident is told once")
        if monitor.get("proxyId"):
            self._lose("its proxy: checks go straight from the worker")

    def _http(self) -> dict[str, Any] | None:
        monitor = self._monitor
        url = str(monitor.get("url") or "")
        if not re.match(r"(?i)https?://[^/\s@]+(/|$|\?|#)", url):
            self._give_up("its URL is not one of http or https, or carries credentials")
            return None
        options = self._request()
        if monitor.get("ignoreTls"):
            options["verify_tls"] = False
        ranges = [str(each) for each in monitor.get("accepted_statuscodes") or ["200-299"]]
        if ranges != ["200-299"]:
            options |= self._statuses(ranges)
        redirects = monitor.get("maxredirects", 10)
        if redirects != 5 and isinstance(redirects, int):
            options["max_redirects"] = min(max(redirects, 0), 10)
        assertions = list(self._assertions(url))
        entry: dict[str, Any] = {"target": url}
        return entry | ({"options": options} if options else {}) | ({"assertions": assertions} if assertions else {})

    def _statuses(self, ranges: list[str]) -> dict[str, Any]:
        try:
            rules.status_ranges(ranges)
        except ValueError as error:
            self._lose(f"its accepted status codes, {', '.join(ranges)}: {error}")
            return {}
        return {"expected_status": ranges}

    def _request(self) -> dict[str, Any]:
        monitor, options = self._monitor, dict[str, Any]()
        method = str(monitor.get("method") or "GET").upper()
        if method != "GET":
            options["method"] = method
        headers = self._headers()
        body = monitor.get("body")
        if body and method == "HEAD":
            self._lose("its body: a HEAD request has none")
        elif body:
            options["body"] = escape(str(body))
            kind = "application/xml" if monitor.get("httpBodyEncoding") == "xml" else "application/json"
            if "content-type" not in {name.lower() for name in headers}:
                headers["Content-Type"] = kind
        if auth := self._auth(headers):
            options["auth"] = auth
        return options | ({"headers": headers} if headers else {})

    def _headers(self) -> dict[str, str]:
        text = self._monitor.get("headers")
        if not text:
            return {}
        try:
            given = json.loads(text) if isinstance(text, str) else text
            return {str(name): escape(str(value)) for name, value in given.items()}
        except (ValueError, AttributeError):
            self._lose("its headers: they are not a JSON object")
            return {}

    def _auth(self, headers: dict[str, str]) -> dict[str, Any] | None:
        """Return credentials, which may stand among the headers as well; the secret goes into a variable."""
        monitor = self._monitor
        method = monitor.get("authMethod") or ("basic" if monitor.get("basic_auth_user") else None)
        if method not in (None, "null", "basic"):
            self._lose(f"its {method} authentication: there are basic, bearer and a header of one's own")
        authorization = next((name for name in headers if name.lower() == "authorization"), None)
        value = headers.pop(authorization) if authorization else ""
        if method == "basic" and monitor.get("basic_auth_user"):
            password = str(monitor.get("basic_auth_pass") or "")
            user = escape(str(monitor["basic_auth_user"]))
            return {"type": "basic", "username": user, "password": self._hide("password", password)}
        if value.lower().startswith("bearer "):
            return {"type": "bearer", "token": self._hide("token", value[7:].strip().replace("$${", "${"))}
        if value:
            return {"type": "header", "name": "Authorization", "value": self._hide("value", value.replace("$${", "${"))}
        return None

    def _hide(self, what: str, secret: str) -> str:
        name = variable_name(self._key, what)
        self.secrets[name] = secret
        return f"${{{name}}}"

    def _assertions(self, url: str) -> Iterator[str]:
        monitor = self._monitor
        if monitor.get("type") == "keyword" and monitor.get("keyword"):
            does = "not contains" if monitor.get("invertKeyword") else "contains"
            yield f"body {does} {json.dumps(str(monitor['keyword']), ensure_ascii=False)}"
        if monitor.get("type") == "json-query" and (assertion := self._json_query()):
            yield assertion
        if monitor.get("expiryNotification") and url.lower().startswith("https:") and not monitor.get("ignoreTls"):
            self._lose(
                f"warnings 21 and 14 days before the certificate ends; it is down {TLS_WARNING_DAYS} days before"
            )
            yield f"tls_days_left >= {TLS_WARNING_DAYS}"

    def _json_query(self) -> str | None:
        query, expected = str(self._monitor.get("jsonPath") or ""), str(self._monitor.get("expectedValue") or "")
        path = _json_path(query)
        if path is None:
            self._lose(f"its query {query!r}: only a path to one value can be asserted, as in $.status.ok")
            return None
        return f"json {path} {_equals(expected)}"

    def _tcp(self) -> dict[str, Any] | None:
        host, port = str(self._monitor.get("hostname") or ""), self._number("port", 0)
        if not host or not port:
            self._give_up("it names no host and port")
            return None
        return {"kind": "tcp", "target": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}

    def _icmp(self) -> dict[str, Any] | None:
        host = str(self._monitor.get("hostname") or "")
        if not host:
            self._give_up("it names no host")
            return None
        return {"kind": "icmp", "target": host}

    def _dns(self) -> dict[str, Any] | None:
        name = str(self._monitor.get("hostname") or "")
        if not name:
            self._give_up("it names no host")
            return None
        options: dict[str, Any] = {}
        if (record := str(self._monitor.get("dns_resolve_type") or "A")) != "A":
            options["record_type"] = record
        resolvers = [
            each.strip() for each in str(self._monitor.get("dns_resolve_server") or "").split(",") if each.strip()
        ]
        if resolvers:
            port = self._number("port", _PORT_OF_DNS)
            host = f"[{resolvers[0]}]" if ":" in resolvers[0] and port != _PORT_OF_DNS else resolvers[0]
            options["resolver"] = host if port == _PORT_OF_DNS else f"{host}:{port}"
        if len(resolvers) > 1:
            self._lose(f"its other resolvers, {', '.join(resolvers[1:])}: a check asks one")
        return {"kind": "dns", "target": name} | ({"options": options} if options else {})

    def _heartbeat(self) -> dict[str, Any]:
        interval = self._within(self._number("interval", 60), _HEARTBEAT_PERIODS, "a period")
        retries, retry = self._number("maxretries", 0), self._number("retryInterval", interval)
        grace = min(max(retries * retry, 1), _HEARTBEAT_PERIODS[1])
        self._lose("its push URL: the job has to ping the new one, /ping/<ping_id>, which GET /v1/monitors shows")
        return {"kind": "heartbeat", "options": {"period_seconds": interval, "grace_seconds": grace}}


def _json_path(query: str) -> str | None:
    """Return the path of ours that a JSONata expression is; None where it is more than a path to one value."""
    if not _SIMPLE_PATH.fullmatch(query.strip()):
        return None
    plain = query.strip().removeprefix("$").removeprefix(".")
    path = "$." + re.sub(r"\.?`([^`]+)`", lambda quoted: f"[{json.dumps(quoted[1])}]", plain)
    path = path.replace("$.[", "$[")
    try:
        _, end = read_path(path, 0)
    except PathError:
        return None
    return path if end == len(path) else None


def _equals(expected: str) -> str:
    """Return the assertion's end. Kuma compares texts: a number or a boolean that is written so is equal as well."""
    text = json.dumps(expected, ensure_ascii=False)
    try:
        value = json.loads(expected)
    except ValueError:
        return f"== {text}"
    is_scalar = isinstance(value, (bool, int, float)) and json.dumps(value) == expected
    return f"in [{text}, {expected}]" if is_scalar else f"== {text}"
