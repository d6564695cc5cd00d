"""The project's public signing keys: fetched from Supabase Auth, held in memory, never in the way of a known key.

PyJWT's own `PyJWKClient` is not used: with its cache run out and the endpoint down it refuses valid tokens, it fetches
once per refused token, and it fetches under the lock that readers need. Source of the format: RFC 7517, RFC 7518 §6.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final

import jwt
import orjson
import requests
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from server import errors

JWKS_PATH: Final = "/auth/v1/.well-known/jwks.json"
TIMEOUT_SECONDS: Final = 3.0
MAX_BODY_BYTES: Final = 256 * 1024
REFRESH_INTERVAL_SECONDS: Final = 600.0
MAX_AGE_SECONDS: Final = 24 * 3600.0
RETRY_SECONDS: Final = 30.0
RETRY_WHEN_EMPTY_SECONDS: Final = 1.0  # nobody can sign in meanwhile; the next request should work once Auth is back
ABANDONED_AFTER_SECONDS: Final = 30.0  # a fetch this old hangs, or its thread was lost in a fork

_RSA_BITS: Final = range(2048, 8192 + 1)
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# Hashing by hashlib saves 10 of 82 µs a check over letting cryptography hash (benchmarks/verification.py).
_SHA256: Final = Prehashed(hashes.SHA256())
_ES256: Final = ec.ECDSA(_SHA256)
_RS256: Final = padding.PKCS1v15()

_log = logging.getLogger(__name__)


class JwksError(Exception):
    """The endpoint answered, but not with a usable JWKS."""


@dataclass(frozen=True, slots=True, eq=False)
class Es256Key:
    """A P-256 public key; it verifies ES256 and nothing else."""

    kid: str
    public_key: ec.EllipticCurvePublicKey = field(repr=False)
    algorithm: ClassVar[str] = "ES256"

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Tell whether `signature` (r and s, 32 bytes each) is this key's over `signing_input`."""
        if len(signature) != 64:
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            self.public_key.verify(encode_dss_signature(r, s), hashlib.sha256(signing_input).digest(), _ES256)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, eq=False)
class Rs256Key:
    """An RSA public key; it verifies RS256 and nothing else."""

    kid: str
    public_key: rsa.RSAPublicKey = field(repr=False)
    algorithm: ClassVar[str] = "RS256"

    def verifies(self, signing_input: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's over `signing_input`."""
        try:
            self.public_key.verify(signature, hashlib.sha256(signing_input).digest(), _RS256, _SHA256)
        except InvalidSignature:
            return False
        return True


# Keys are compared by identity: a refresh that brings the same key again keeps the same object, so whoever remembers
# the object can tell by `is` whether the key still stands.
VerificationKey = Es256Key | Rs256Key


@dataclass(frozen=True, slots=True)
class JwksStatus:
    """How the snapshot stands, for /readyz. `last_error` is the class of the latest failure since the last success."""

    usable: bool
    key_count: int
    last_success_age_seconds: float | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class _Held:
    keys: Mapping[str, VerificationKey]
    fetched_at: float


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    started_at: float
    landed: threading.Event = field(default_factory=threading.Event)


class JwksSnapshot:
    """The keys as last seen, immutable and swapped whole.

    1. A known kid is always answered from memory; `refresh_interval_seconds` after the last success a refresh starts
       behind its back.
    2. A failed refresh changes nothing: the old keys serve on, up to `max_age_seconds`, and the next try is 30 s later.
    3. An unknown kid joins the refresh in flight, or starts one unless one began in the last 30 s (whatever its cause,
       however it ended). It waits `wait_seconds` at most. There is never more than one in flight.
    4. Where no usable keys are held every kid is unknown, and one fetch a second may be tried.

    `fetch` returns the document's bytes or raises; it runs in a thread of its own. `clock` is monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[], bytes],
        clock: Callable[[], float],
        *,
        max_age_seconds: float = MAX_AGE_SECONDS,
        refresh_interval_seconds: float = REFRESH_INTERVAL_SECONDS,
        wait_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._max_age_seconds = max_age_seconds
        self._refresh_interval_seconds = refresh_interval_seconds
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()  # guards what follows; readers of `_held` and `_due_at` do not need it
        self._held: _Held | None = None
        self._due_at = float("-inf")
        self._last_started_at = float("-inf")
        self._flight: _Flight | None = None
        self._last_error: str | None = None

    def known(self, kid: str) -> VerificationKey | None:
        """Return the key from memory without ever waiting; None where it is unknown or the snapshot is too old."""
        now = self._clock()
        if now >= self._due_at:
            self._start_if_due(now)
        held = self._held
        if held is None or now - held.fetched_at > self._max_age_seconds:
            return None
        return held.keys.get(kid)

    def find(self, kid: str) -> VerificationKey | None:
        """Return the key, waiting for a refresh where it is unknown; None where it stays unknown.

        Raises Unavailable where no usable keys are held and none can be had.
        """
        key = self.known(kid)
        if key is not None:
            return key
        flight = self._join(kid)
        if flight is not None:
            flight.landed.wait(self._wait_seconds)
        held = self._usable(self._clock())
        if held is None:
            raise errors.Unavailable(
                "Access tokens cannot be checked at the moment. Nothing was lost; try again.",
                reason="jwks_unavailable",
                retry_after_seconds=1,
            )
        return held.keys.get(kid)

    def warm(self) -> None:
        """Start the first fetch without waiting for it, so that the first request need not."""
        self._start_if_due(self._clock())

    def status(self) -> JwksStatus:
        """Say how the snapshot stands. Touches no network."""
        now = self._clock()
        with self._lock:
            held, last_error = self._held, self._last_error
        return JwksStatus(
            usable=self._usable(now) is not None,
            key_count=len(held.keys) if held else 0,
            last_success_age_seconds=now - held.fetched_at if held else None,
            last_error=last_error,
        )

    def _usable(self, now: float) -> _Held | None:
        held = self._held
        return held if held is not None and now - held.fetched_at <= self._max_age_seconds else None

    def _start_if_due(self, now: float) -> None:
        with self._lock:
            if now >= self._due_at and not self._in_flight(now):
                self._start(now)

    def _join(self, kid: str) -> _Flight | None:
        """Return the refresh that an unknown kid has to wait for, starting it where that is allowed."""
        with self._lock:
            now = self._clock()
            held = self._usable(now)
            if held is not None and kid in held.keys:
                return None  # it landed between our look and the lock
            if not self._in_flight(now) and held is not None and now - self._last_started_at >= RETRY_SECONDS:
                self._start(now)
            return self._flight

    def _in_flight(self, now: float) -> bool:
        return self._flight is not None and now - self._flight.started_at < ABANDONED_AFTER_SECONDS

    def _start(self, now: float) -> None:
        """Start a refresh in a thread of its own; the caller holds the lock."""
        self._last_started_at = now
        self._due_at = now + (RETRY_SECONDS if self._usable(now) else RETRY_WHEN_EMPTY_SECONDS)
        self._flight = flight = _Flight(now)
        try:
            threading.Thread(target=self._refresh, args=(flight,), name="jwks-refresh", daemon=True).start()
        except RuntimeError as error:  # no more threads: the keys we hold are still good
            self._flight = None
            self._note_failure(error)

    def _refresh(self, flight: _Flight) -> None:
        try:
            keys: dict[str, VerificationKey] | None = read_jwks(self._fetch())
            failure = None
        except Exception as error:  # whatever goes wrong out there, the old keys serve on
            keys, failure = None, error
        with self._lock:
            if failure is not None:
                self._note_failure(failure)
            elif keys is not None:
                self._adopt(keys, flight)
            if self._flight is flight:
                self._flight = None
        flight.landed.set()

    def _adopt(self, keys: dict[str, VerificationKey], flight: _Flight) -> None:
        before = self._held
        if before is not None and before.fetched_at > flight.started_at:
            return  # an abandoned fetch that came home late
        old = before.keys if before else {}
        merged = {kid: old[kid] if kid in old and _is_same(old[kid], key) else key for kid, key in keys.items()}
        self._held = _Held(MappingProxyType(merged), flight.started_at)
        self._due_at = flight.started_at + self._refresh_interval_seconds
        self._last_error = None

    def _note_failure(self, error: Exception) -> None:
        self._last_error = type(error).__name__
        _log.warning("the signing keys could not be refreshed: %s", self._last_error)


def fetch_jwks(
    url: str, *, timeout_seconds: float = TIMEOUT_SECONDS, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return the body that `url` answers with: 200 only, no redirect followed, 256 kB at most.

    `timeout_seconds` bounds connecting, each read, and the body as a whole.
    Raises JwksError, requests.RequestException, or urllib3's HTTPError where the body breaks off.
    """
    deadline = clock() + timeout_seconds
    with requests.Session() as session:
        session.trust_env = False  # no proxy and no .netrc: the address is the operator's own, and so is the way to it
        with session.get(
            url,
            timeout=timeout_seconds,
            allow_redirects=False,
            stream=True,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as response:
            if response.status_code != 200:
                raise JwksError(f"status {response.status_code}")
            body = bytearray()
            # Not iter_content: it waits until a chunk is full, so a body that drips would never meet the deadline.
            while chunk := response.raw.read1(16 * 1024, decode_content=False):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise JwksError("too large")
                if clock() > deadline:
                    raise requests.ReadTimeout("the body came too slowly")
            return bytes(body)


def read_jwks(document: bytes) -> dict[str, VerificationKey]:
    """Return the usable keys of a JWK set by kid.

    A key that is not for us is left out; of a repeated kid the first counts. Raises JwksError where the document is
    no JWK set. An empty set is one: all keys have left.
    """
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise JwksError("not JSON") from None
    listed = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(listed, list):
        raise JwksError("no list of keys")
    keys: dict[str, VerificationKey] = {}
    for jwk in listed:
        key = _read_key(jwk) if isinstance(jwk, dict) else None
        if key is not None:
            keys.setdefault(key.kid, key)
    return keys


def _read_key(jwk: dict[str, Any]) -> VerificationKey | None:
    """Return the key where it is a public one, meant for verifying ES256 or RS256, and strong enough; else None."""
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    algorithm = {("EC", "P-256"): "ES256", ("RSA", None): "RS256"}.get(_kind(jwk))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or not _PRIVATE_MEMBERS.isdisjoint(jwk):
        return None
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        return None
    try:
        public_key = jwt.get_algorithm_by_name(algorithm).from_jwk(jwk)
    except (jwt.InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return Es256Key(kid, public_key)
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size in _RSA_BITS:
        return Rs256Key(kid, public_key)
    return None


def _kind(jwk: dict[str, Any]) -> tuple[str, str | None]:
    kty, crv = jwk.get("kty"), jwk.get("crv")
    return (kty if isinstance(kty, str) else "", crv if isinstance(crv, str) else None)


def _is_same(one: VerificationKey, other: VerificationKey) -> bool:
    return one.public_key == other.public_key  # keys of different kinds are never equal
