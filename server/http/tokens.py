"""Whether an access token is one of this Supabase project's signed-in users, and whose.

The server forwards the token to PostgREST, which checks it again: a mistake here opens no row. It would still open what
the server itself grants to a user, so everything that is not plainly right is refused. Source: RFC 7515, 7519, 8725.
"""

import binascii
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

import jwt
import orjson

from server.data.api_keys import KEY_PREFIX
from server.data.jwks import VerificationKey
from server.errors import Unauthenticated
from server.settings import Settings

MAX_TOKEN_BYTES: Final = 8 * 1024
MAX_LEEWAY_SECONDS: Final = 30
MIN_SECRET_BYTES: Final = 32  # RFC 7518 §3.2: at least as long as the hash
SUPPORTED_ALGORITHMS: Final = frozenset({"ES256", "RS256", "HS256"})

_HEADERS_REMEMBERED: Final = 64
_NUMBERS: Final = (int, float)  # by exact type: True is an int by inheritance
_LATEST: Final = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that datetime knows
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Each of these asks the verifier to take the key, or the rules, from the token itself.
_REFUSED_HEADERS: Final = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64"})


class Reason(StrEnum):
    """Why a token was refused: stable words for the log, never for the caller."""

    NO_HEADER = "no_header"
    SEVERAL_HEADERS = "several_headers"
    NOT_BEARER = "not_bearer"
    TOO_LONG = "too_long"
    NOT_THREE_PARTS = "not_three_parts"
    NOT_BASE64URL = "not_base64url"
    BAD_HEADER = "bad_header"
    BAD_PAYLOAD = "bad_payload"
    HEADER_REFUSED = "header_refused"
    TYPE_REFUSED = "type_refused"
    ALGORITHM_REFUSED = "algorithm_refused"
    NO_KID = "no_kid"
    UNKNOWN_KID = "unknown_kid"
    ALGORITHM_MISMATCH = "algorithm_mismatch"
    BAD_SIGNATURE = "bad_signature"
    BAD_EXP = "bad_exp"
    BAD_IAT = "bad_iat"
    BAD_NBF = "bad_nbf"
    EXPIRED = "expired"
    ISSUED_IN_FUTURE = "issued_in_future"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_ROLE = "wrong_role"
    BAD_SUB = "bad_sub"
    BAD_CLAIM = "bad_claim"
    CLIENT_REFUSED = "client_refused"


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What this deployment accepts.

    `issuer` None: `iss` is neither required nor looked at. HS256 counts only where it is listed and `hs256_secret` is
    set (for Supabase the secret's text in UTF-8, not decoded from base64). `oauth_client_ids` are the third-party OAuth
    clients whose tokens are accepted. Raises ValueError where a value is unsafe.
    """

    issuer: str | None
    audience: str = "authenticated"
    algorithms: Collection[str] = ("ES256", "RS256")
    hs256_secret: bytes | None = field(default=None, repr=False)
    oauth_client_ids: frozenset[str] = frozenset()
    leeway_seconds: int = 10

    def __post_init__(self) -> None:
        if not self.algorithms or not SUPPORTED_ALGORITHMS.issuperset(self.algorithms):
            raise ValueError(f"algorithms must be some of {', '.join(sorted(SUPPORTED_ALGORITHMS))}")
        if not 0 <= self.leeway_seconds <= MAX_LEEWAY_SECONDS:
            raise ValueError(f"leeway_seconds must lie between 0 and {MAX_LEEWAY_SECONDS}")
        if self.issuer == "" or not self.audience:
            raise ValueError("issuer and audience must not be empty; issuer None switches its check off")
        if self.hs256_secret is None:
            return
        if len(self.hs256_secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the HS256 secret must have at least {MIN_SECRET_BYTES} bytes")
        try:
            jwt.get_algorithm_by_name("HS256").prepare_key(self.hs256_secret)
        except jwt.InvalidKeyError:
            raise ValueError("the HS256 secret is a public key or certificate, not a secret") from None

    @property
    def accepted_algorithms(self) -> frozenset[str]:
        """The listed algorithms, HS256 only with its secret."""
        return frozenset(self.algorithms) - (frozenset() if self.hs256_secret else {"HS256"})


def policy_of(settings: Settings) -> TokenPolicy:
    """Return the policy that the settings ask for."""
    secret = settings.supabase_jwt_secret
    return TokenPolicy(
        issuer=settings.supabase_jwt_issuer,
        audience=settings.supabase_jwt_audience,
        algorithms=("ES256", "RS256", "HS256") if secret else ("ES256", "RS256"),
        hs256_secret=secret.encode() if secret else None,
        oauth_client_ids=settings.oauth_client_ids,
    )


@dataclass(frozen=True, slots=True)
class Claims:
    """Whose token it is. `user_id` is a UUID in canonical text, `expires_at` Unix seconds, `aal` aal1, aal2 or aal3."""

    user_id: str
    email: str | None
    is_anonymous: bool
    aal: str
    session_id: str | None
    client_id: str | None
    expires_at: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a token's header asks for; all else in it is ignored or has been refused."""

    algorithm: str
    kid: str | None


class KeySource(Protocol):
    """Where public keys come from: `known` never waits; `find` may, and raises Unavailable where it holds nothing."""

    def known(self, kid: str) -> VerificationKey | None:
        """Return the key from memory."""

    def find(self, kid: str) -> VerificationKey | None:
        """Return the key, after a look at the source where needed."""


class Verifier:
    """Decides about tokens by one policy, and remembers the good ones.

    The cache holds at most `cache_size` tokens in two generations: a full young one becomes the old one, and the old
    one is dropped. So a hit is a dict read without a lock. It is keyed by the token's SHA-256, so that no token lies in
    memory for the cache's sake. Refused tokens are not remembered: a stranger could push the good ones out with them,
    and a refusal may be lifted (a new key, a clock that moves on).
    """

    def __init__(self, policy: TokenPolicy, keys: KeySource | None, *, cache_size: int = 10_000) -> None:
        if keys is None and policy.accepted_algorithms != {"HS256"}:
            raise ValueError("ES256 and RS256 need a source of keys")
        if not policy.accepted_algorithms:
            raise ValueError("HS256 alone needs its secret")
        if cache_size < 2:
            raise ValueError("cache_size must be at least 2")
        self._policy = policy
        self._algorithms = policy.accepted_algorithms
        self._leeway_seconds = policy.leeway_seconds
        self._keys = keys
        self._generation_size = cache_size // 2
        self._lock = threading.Lock()  # taken by writers of the cache only
        self._young: dict[bytes, tuple[Claims, VerificationKey | None]] = {}
        self._old: dict[bytes, tuple[Claims, VerificationKey | None]] = {}
        self._headers: dict[bytes, Header] = {}  # of good signatures only: a project has as many as it has keys

    def verify(self, token: str, now: float) -> Claims:
        """Return the claims of a good token; `now` is Unix seconds.

        Raises Unauthenticated with a Reason, and Unavailable where the keys cannot be had.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(reason=Reason.TOO_LONG)
        try:
            encoded = token.encode("ascii")
        except UnicodeEncodeError:
            raise Unauthenticated(reason=Reason.NOT_BASE64URL) from None
        digest = hashlib.sha256(encoded).digest()
        entry = self._young.get(digest) or self._recall(digest)
        if entry is not None:
            claims, key = entry
            if now >= claims.expires_at + self._leeway_seconds:
                raise Unauthenticated(reason=Reason.EXPIRED)
            if key is None or (self._keys is not None and self._keys.known(key.kid) is key):
                return claims
        claims, key = self._check(encoded, now)
        self._remember(digest, (claims, key))
        return claims

    def _recall(self, digest: bytes) -> tuple[Claims, VerificationKey | None] | None:
        entry = self._old.get(digest)
        if entry is not None:
            self._remember(digest, entry)
        return entry

    def _remember(self, digest: bytes, entry: tuple[Claims, VerificationKey | None]) -> None:
        with self._lock:
            if len(self._young) >= self._generation_size:
                self._old, self._young = self._young, {}
            self._young[digest] = entry

    def _check(self, encoded: bytes, now: float) -> tuple[Claims, VerificationKey | None]:
        """Check a token that is not remembered, in this order: form, header, key, signature, and only then claims."""
        parts = encoded.split(b".")
        if len(parts) != 3:
            raise Unauthenticated(reason=Reason.NOT_THREE_PARTS)
        header = self._headers.get(parts[0]) or read_header(parts[0], self._algorithms)
        signature = _decode(parts[2])
        signing_input = encoded[: len(parts[0]) + 1 + len(parts[1])]
        key = None
        if header.algorithm == "HS256":
            good = self._is_mac(signing_input, signature)
        else:
            key = self._find_key(header)
            good = key.verifies(signing_input, signature)
        if not good:
            raise Unauthenticated(reason=Reason.BAD_SIGNATURE)
        if len(self._headers) < _HEADERS_REMEMBERED:
            self._headers[parts[0]] = header
        return judge_claims(self._policy, _read_payload(parts[1]), now), key

    def _is_mac(self, signing_input: bytes, signature: bytes) -> bool:
        secret = self._policy.hs256_secret
        assert secret is not None, "HS256 is accepted only with a secret"
        return hmac.compare_digest(hmac.digest(secret, signing_input, "sha256"), signature)

    def _find_key(self, header: Header) -> VerificationKey:
        if header.kid is None:
            raise Unauthenticated(reason=Reason.NO_KID)
        assert self._keys is not None, "ES256 and RS256 are accepted only with a source of keys"
        key = self._keys.find(header.kid)
        if key is None:
            raise Unauthenticated(reason=Reason.UNKNOWN_KID)
        if key.algorithm != header.algorithm:
            raise Unauthenticated(reason=Reason.ALGORITHM_MISMATCH)
        return key


def bearer_token(header_values: Sequence[str]) -> str:
    """Return the token of the one Authorization header: `Bearer`, one blank, three parts or an API key, at most 8 KiB.

    `header_values` holds one entry per Authorization header line; lines that a server has joined by a comma have too
    many parts. The token's alphabet is for `verify` to refuse. Raises Unauthenticated. Source: RFC 6750 §2.1.
    """
    if len(header_values) != 1:
        raise Unauthenticated(reason=Reason.SEVERAL_HEADERS if header_values else Reason.NO_HEADER)
    scheme, _, token = header_values[0].partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(reason=Reason.NOT_BEARER)
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated(reason=Reason.TOO_LONG)
    if token.count(".") != 2 and not token.startswith(KEY_PREFIX):
        raise Unauthenticated(reason=Reason.NOT_THREE_PARTS)
    return token


def judge_claims(policy: TokenPolicy, payload: dict[str, Any], now: float) -> Claims:
    """Decide about the claims of a token whose signature is good.

    `user_metadata` is never looked at: users write it themselves. Claims that the embedded stack leaves out have the
    value that grants least. Raises Unauthenticated.
    """
    expires_at = int(_instant(payload, "exp", Reason.BAD_EXP))
    if now >= expires_at + policy.leeway_seconds:
        raise Unauthenticated(reason=Reason.EXPIRED)
    if _instant(payload, "iat", Reason.BAD_IAT) > now + policy.leeway_seconds:
        raise Unauthenticated(reason=Reason.ISSUED_IN_FUTURE)
    if "nbf" in payload and _instant(payload, "nbf", Reason.BAD_NBF) > now + policy.leeway_seconds:
        raise Unauthenticated(reason=Reason.NOT_YET_VALID)
    if policy.issuer is not None and payload.get("iss") != policy.issuer:
        raise Unauthenticated(reason=Reason.WRONG_ISSUER)
    audience = payload.get("aud")
    if audience != policy.audience and not (isinstance(audience, list) and policy.audience in audience):
        raise Unauthenticated(reason=Reason.WRONG_AUDIENCE)
    if payload.get("role") != "authenticated":  # service_role and anon have no business at the user's door
        raise Unauthenticated(reason=Reason.WRONG_ROLE)
    sub = payload.get("sub")
    if not isinstance(sub, str) or _UUID.fullmatch(sub.lower()) is None:
        raise Unauthenticated(reason=Reason.BAD_SUB)
    client_id = payload.get("client_id")
    if client_id is not None and (not isinstance(client_id, str) or client_id not in policy.oauth_client_ids):
        raise Unauthenticated(reason=Reason.CLIENT_REFUSED)
    is_anonymous, aal = payload.get("is_anonymous", False), payload.get("aal", "aal1")
    if not isinstance(is_anonymous, bool) or aal not in ("aal1", "aal2", "aal3"):
        raise Unauthenticated(reason=Reason.BAD_CLAIM)
    return Claims(
        user_id=sub.lower(),
        email=_text(payload, "email"),
        is_anonymous=is_anonymous,
        aal=aal,
        session_id=_text(payload, "session_id"),
        client_id=client_id,
        expires_at=expires_at,
    )


def read_header(segment: bytes, accepted: frozenset[str]) -> Header:
    """Return the header that a segment spells, its algorithm decided before any key is looked up.

    Raises Unauthenticated.
    """
    try:
        header = _HEADER_DECODER.decode(_decode(segment).decode("utf-8"))
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a number of 5,000 digits, 4,000 levels deep
        raise Unauthenticated(reason=Reason.BAD_HEADER) from None
    if not isinstance(header, dict):
        raise Unauthenticated(reason=Reason.BAD_HEADER)
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in accepted:
        raise Unauthenticated(reason=Reason.ALGORITHM_REFUSED)
    if not _REFUSED_HEADERS.isdisjoint(header):
        raise Unauthenticated(reason=Reason.HEADER_REFUSED)
    if header.get("typ", "JWT") not in ("JWT", "jwt", "at+jwt"):
        raise Unauthenticated(reason=Reason.TYPE_REFUSED)
    return Header(algorithm, kid if isinstance(kid, str) and kid else None)


def _read_payload(segment: bytes) -> dict[str, Any]:
    """Return the claims of a token whose signature is good: the issuer has written them, letter by letter.

    So a second spelling of the base64 is no concern here, and of two claims with one name the last counts, as RFC 7519
    §4 allows; looking for either would cost 8 of the 100 µs a check may take. orjson refuses NaN and what is not UTF-8.
    """
    try:
        payload = orjson.loads(binascii.a2b_base64(segment.translate(_TO_STANDARD) + b"=="))
    except (binascii.Error, orjson.JSONDecodeError):
        raise Unauthenticated(reason=Reason.BAD_PAYLOAD) from None
    if not isinstance(payload, dict):
        raise Unauthenticated(reason=Reason.BAD_PAYLOAD)
    return payload


def _instant(payload: dict[str, Any], name: str, reason: Reason) -> float:
    """Return a NumericDate (RFC 7519 §2): a number, not a bool, between 1970 and 9999. NaN fails the comparison."""
    value: Any = payload.get(name)
    if type(value) in _NUMBERS and 0 <= value <= _LATEST:
        return value  # type: ignore[no-any-return]  # an int or a float
    raise Unauthenticated(reason=reason)


def _text(payload: dict[str, Any], name: str) -> str | None:
    """Return a text claim; None where it is absent, null or empty. Control characters, lone surrogates are refused."""
    value = payload.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise Unauthenticated(reason=Reason.BAD_CLAIM)
    return value


def _decode(segment: bytes) -> bytes:
    """Return what a base64url segment says; only the one spelling that an encoder makes is accepted (RFC 7515 §2).

    Encoding it back and comparing refuses padding, blanks, the other alphabet and stray last bits all at once.
    """
    try:
        decoded = binascii.a2b_base64(segment.translate(_TO_STANDARD) + b"==")
    except binascii.Error:
        raise Unauthenticated(reason=Reason.NOT_BASE64URL) from None
    if binascii.b2a_base64(decoded, newline=False).translate(_FROM_STANDARD, b"=") != segment:
        raise Unauthenticated(reason=Reason.NOT_BASE64URL)
    return decoded


_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_FROM_STANDARD: Final = bytes.maketrans(b"+/", b"-_")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# A stranger writes the header, and PostgREST reads it after us: refuse what two parsers might read differently.
_HEADER_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
