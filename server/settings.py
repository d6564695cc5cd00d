"""The only reader of the environment. Says every missing or malformed value at once, and never prints a secret."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values

T = TypeVar("T")

MINIMUM_JWT_SECRET_BYTES = 32  # RFC 7518, 3.2: an HS256 key is at least as long as its hash


class Rate(NamedTuple):
    """How much in how long."""

    quota: int
    window_seconds: int


_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_HIGHEST_QUOTA = 10**9
RATE_LIMITS = {
    "ordinary": Rate(1_200, 60),
    "write": Rate(300, 60),
    "costly": Rate(30, 60),
    "connect": Rate(60, 60),
    "public": Rate(1_200, 60),
    "attempts": Rate(60, 60),
    # Many jobs stand behind one address; each of them says little (Healthchecks: ten a minute, its issue 553).
    "pings": Rate(60_000, 60),
    "heartbeat": Rate(10, 60),
}


# Anycast name servers of three operators: they answer TCP on 443 from everywhere, and never all fail together.
REFERENCES = (("1.1.1.1", 443), ("8.8.8.8", 443), ("9.9.9.9", 443))


class SettingsError(Exception):
    """Some variables are missing or malformed. `problems` holds one line for each, and no secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("Tocsin cannot start:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; `.env.example` describes each variable. Secrets stay out of `repr`."""

    supabase_url: str
    supabase_publishable_key: str
    supabase_secret_key: str = field(repr=False)
    supabase_jwt_secret: str | None = field(repr=False)
    supabase_jwt_issuer: str | None
    supabase_jwt_audience: str
    oauth_client_ids: frozenset[str]
    cors_origins: frozenset[str]
    trusted_proxies: int
    rate_limits: Mapping[str, Rate]
    invitation_url: str | None
    redis_url: str | None = field(repr=False)  # may carry a password
    private_targets: tuple[IPv4Network | IPv6Network, ...]
    worker_region: str
    worker_references: tuple[tuple[str, int], ...]
    log_level: str
    host: str
    port: int
    web_concurrency: int
    streams_port: int
    streams_url: str
    max_streams: int


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Which API the command line speaks to, and with which key."""

    api_url: str
    api_key: str = field(repr=False)


def load_settings(env_file: Path = Path(".env")) -> Settings:
    """Read `.env` and the environment, which wins. Raises SettingsError."""
    return read_settings(load_variables(env_file))


def load_variables(env_file: Path = Path(".env")) -> Mapping[str, str]:
    """Return the variables of `.env` and of the environment, which wins."""
    in_file = {name: value for name, value in dotenv_values(env_file).items() if value is not None}
    return {**in_file, **os.environ}


def read_client_settings(env: Mapping[str, str]) -> ClientSettings:
    """Build what the command line needs from name-value pairs. Raises SettingsError with every problem."""
    read = _Reader(env)
    settings: dict[str, Any] = {
        "api_url": read.required("TOCSIN_URL", _url("https://tocsin.example.com", {"http", "https"})),
        "api_key": read.required("TOCSIN_API_KEY", _api_key),
    }
    if read.problems:
        raise SettingsError(read.problems)
    return ClientSettings(**settings)


def read_settings(env: Mapping[str, str]) -> Settings:
    """Build the settings from name-value pairs. Raises SettingsError with every problem, not just the first."""
    read = _Reader(env)
    url = read.required("SUPABASE_URL", _url("https://<ref>.supabase.co", {"http", "https"}))
    issuer = read.optional("SUPABASE_JWT_ISSUER", _text, f"{url}/auth/v1")
    streams_port = read.optional("STREAMS_PORT", _whole_number(1, 65535), 8001)
    settings: dict[str, Any] = {
        "supabase_url": url,
        "supabase_publishable_key": read.required("SUPABASE_PUBLISHABLE_KEY", _publishable_key),
        "supabase_secret_key": read.required("SUPABASE_SECRET_KEY", _key),
        "supabase_jwt_secret": read.optional("SUPABASE_JWT_SECRET", _jwt_secret, None),
        "supabase_jwt_issuer": None if issuer == "unchecked" else issuer,
        "supabase_jwt_audience": read.optional("SUPABASE_JWT_AUDIENCE", _text, "authenticated"),
        "oauth_client_ids": read.optional("OAUTH_CLIENT_IDS", _words, frozenset()),
        "cors_origins": read.optional("CORS_ORIGINS", _origins, frozenset()),
        "trusted_proxies": read.optional("TRUSTED_PROXIES", _whole_number(0, 8), 0),
        "rate_limits": read.optional("RATE_LIMITS", _rate_limits, RATE_LIMITS),
        "invitation_url": read.optional(
            "INVITATION_URL", _url("https://app.example.com/join", {"http", "https"}), None
        ),
        "redis_url": read.optional("REDIS_URL", _url("redis://127.0.0.1:6379/0", {"redis", "rediss"}), None),
        "private_targets": read.optional("PRIVATE_TARGETS", _networks, ()),
        "worker_region": read.optional("WORKER_REGION", _region, "default"),
        "worker_references": read.optional("WORKER_REFERENCES", _addresses, REFERENCES),
        "log_level": read.optional("LOG_LEVEL", _log_level, "INFO"),
        "host": read.optional("HOST", _text, "127.0.0.1"),
        "port": read.optional("PORT", _whole_number(1, 65535), 8000),
        "web_concurrency": read.optional("WEB_CONCURRENCY", _whole_number(1, 64), 1),
        "streams_port": streams_port,
        "streams_url": read.optional(
            "STREAMS_URL", _url("https://streams.example.com", {"http", "https"}), f"http://127.0.0.1:{streams_port}"
        ),
        "max_streams": read.optional("MAX_STREAMS", _whole_number(1, 1_000_000), 10_000),
    }
    if read.problems:
        raise SettingsError(read.problems)
    return Settings(**settings)


class _Reader:
    """Reads variables by name and collects what is wrong. A blank value counts as not set."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []

    def required(self, name: str, parse: Callable[[str], T]) -> T | None:
        if not self._env.get(name, "").strip():
            self.problems.append(f"{name} is missing")
            return None
        return self._parsed(name, parse)

    def optional(self, name: str, parse: Callable[[str], Any], default: Any) -> Any:
        return self._parsed(name, parse) if self._env.get(name, "").strip() else default

    def _parsed(self, name: str, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(self._env[name].strip())
        except ValueError as error:
            self.problems.append(f"{name} {error}")
            return None


def _text(value: str) -> str:
    return value


def _publishable_key(value: str) -> str:
    if value.startswith("sb_secret_"):
        raise ValueError("must not be a secret key: it goes out with every user's request")
    return _key(value)


def _one_word(examples: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if any(c.isspace() or not c.isprintable() or not c.isascii() for c in value):
            raise ValueError(f"must be one word: {examples}")
        return value

    return parse


_key = _one_word("sb_publishable_…, sb_secret_… or a legacy JWT key")
_api_key = _one_word("a key (tocsin_…) from POST /v1/api-keys")


def _jwt_secret(value: str) -> str:
    if len(value.encode()) < MINIMUM_JWT_SECRET_BYTES:
        raise ValueError(f"must have at least {MINIMUM_JWT_SECRET_BYTES} bytes")
    return value


def _url(example: str, schemes: set[str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = _split(value)
        if parts is None or parts.scheme not in schemes:
            raise ValueError(f"must be a URL such as {example}")
        if "http" in schemes and (parts.username is not None or parts.query or parts.fragment):
            raise ValueError(f"must be a URL such as {example}, without credentials, ? and #")
        return value.rstrip("/")

    return parse


def _split(value: str) -> SplitResult | None:
    """Return the parts of a URL that names a host; None where it does not, or holds what no URL may."""
    if not value.isascii() or not value.isprintable() or any(c in ' <>"' for c in value):
        return None
    try:
        parts = urlsplit(value)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _words(value: str) -> frozenset[str]:
    return frozenset(word.strip() for word in value.split(",") if word.strip())


def _origins(value: str) -> frozenset[str]:
    origins = _words(value)
    for origin in origins:
        parts = _split(origin)
        # Browsers send scheme, host and port, in lower case, and nothing else.
        if (
            parts is None
            or "@" in origin
            or origin not in {f"{scheme}://{parts.netloc.lower()}" for scheme in ("http", "https")}
        ):
            raise ValueError("must list origins such as https://app.example.com, separated by commas, without a path")
    return origins


def _rate_limits(value: str) -> Mapping[str, Rate]:
    changed: dict[str, Rate] = {}
    for word in sorted(_words(value)):
        name, _, rate = word.partition("=")
        quota, _, unit = rate.partition("/")
        known = name in RATE_LIMITS and name not in changed and unit in _SECONDS
        if not known or not quota.isascii() or not quota.isdigit() or not 1 <= int(quota) <= _HIGHEST_QUOTA:
            raise ValueError(
                "must list limits such as ordinary=1200/minute, separated by commas; "
                f"names: {', '.join(RATE_LIMITS)}; units: {', '.join(_SECONDS)}"
            )
        changed[name] = Rate(int(quota), _SECONDS[unit])
    return {**RATE_LIMITS, **changed}


def _networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(word) for word in sorted(_words(value)))
    except ValueError as error:
        raise ValueError(f"must list networks in CIDR notation, separated by commas: {error}") from None


def _region(value: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9_-]{0,39}", value):
        raise ValueError("must be a short name such as eu-west: lower case letters, digits, - and _")
    return value


def _addresses(value: str) -> tuple[tuple[str, int], ...]:
    if value == "none":
        return ()
    addresses = []
    for word in sorted(_words(value)):
        host, colon, port = word.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
            raise ValueError("must list host:port, separated by commas, or be none")
        addresses.append((host.strip("[]"), int(port)))
    return tuple(addresses)


def _log_level(value: str) -> str:
    if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
    return value.upper()


def _whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not lowest <= int(value) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return int(value)

    return parse
