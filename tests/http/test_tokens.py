"""Which tokens are good, whose they are, and what happens to each known attack."""

import base64
import dataclasses
import json
import threading
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.data.jwks import VerificationKey, read_jwks
from server.errors import Unauthenticated, Unavailable
from server.http.tokens import Claims, Reason, TokenPolicy, Verifier, bearer_token
from tests.http.minting import (
    ABSENT,
    ISSUER,
    NOW,
    SECRET,
    SESSION_ID,
    USER_ID,
    SigningKey,
    b64,
    es256_key,
    jwks,
    mint_hs256,
    rs256_key,
    user_claims,
)

LEEWAY = 10
POLICY = TokenPolicy(
    issuer=ISSUER,
    algorithms=("ES256", "RS256", "HS256"),
    hs256_secret=SECRET,
    oauth_client_ids=frozenset({"trusted-client"}),
    leeway_seconds=LEEWAY,
)
ADA = Claims(
    user_id=USER_ID,
    email="ada@example.org",
    is_anonymous=False,
    aal="aal1",
    session_id=SESSION_ID,
    client_id=None,
    expires_at=NOW + 3600,
)


class HeldKeys:
    """A source of keys without a network; `looked_up` lists the kids that were asked for."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys: dict[str, VerificationKey] = read_jwks(jwks(*keys))
        self.looked_up: list[str] = []
        self.unavailable = False

    def known(self, kid: str) -> VerificationKey | None:
        return self.keys.get(kid)

    def find(self, kid: str) -> VerificationKey | None:
        self.looked_up.append(kid)
        if self.unavailable:
            raise Unavailable
        return self.keys.get(kid)


@pytest.fixture
def keys() -> HeldKeys:
    return HeldKeys(es256_key(), rs256_key())


@pytest.fixture
def verifier(keys: HeldKeys) -> Verifier:
    return Verifier(POLICY, keys)


def refusal(verifier: Verifier, token: str, now: float = NOW) -> str | None:
    with pytest.raises(Unauthenticated) as refused:
        verifier.verify(token, now)
    return refused.value.reason


def header_with(**members: object) -> bytes:
    return json.dumps({"alg": "ES256", "kid": "es-1", "typ": "JWT", **members}).encode()


@pytest.mark.parametrize("key", [es256_key(), rs256_key()], ids=lambda key: key.algorithm)
def test_a_users_token_says_whose_it_is(verifier: Verifier, key: SigningKey) -> None:
    assert verifier.verify(key.mint(user_claims()), NOW) == ADA


def test_a_token_signed_with_the_shared_secret_is_good_where_the_secret_is_configured(verifier: Verifier) -> None:
    assert verifier.verify(mint_hs256(user_claims()), NOW) == ADA


ACCEPTED: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("the audience may be one of a list", {"aud": ["other", "authenticated"]}, {}),
    ("the token may have expired within the leeway", {"exp": NOW - LEEWAY + 1}, {"expires_at": NOW - LEEWAY + 1}),
    ("a fraction of a second is cut off the expiry", {"exp": NOW + 60.7}, {"expires_at": NOW + 60}),
    ("the issuer's clock may be ahead by the leeway", {"iat": NOW + LEEWAY}, {}),
    ("not-before may be ahead by the leeway", {"nbf": NOW + LEEWAY}, {}),
    ("a user id in capitals becomes canonical", {"sub": USER_ID.upper()}, {}),
    ("an anonymous user is known as one", {"is_anonymous": True}, {"is_anonymous": True}),
    ("without is_anonymous nobody is anonymous", {"is_anonymous": ABSENT}, {}),
    ("a second factor is known", {"aal": "aal2"}, {"aal": "aal2"}),
    ("without aal the lowest level counts", {"aal": ABSENT}, {"aal": "aal1"}),
    ("a phone user has no email", {"email": ""}, {"email": None}),
    ("email may be absent", {"email": ABSENT}, {"email": None}),
    ("session_id may be absent", {"session_id": ABSENT}, {"session_id": None}),
    ("a configured OAuth client is accepted", {"client_id": "trusted-client"}, {"client_id": "trusted-client"}),
    ("what users write about themselves is not looked at", {"user_metadata": {"role": "service_role"}}, {}),
    ("claims we do not know are ignored", {"x" * 40: [1, {"deep": [None]}]}, {}),
]


@pytest.mark.parametrize(("claims", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_a_good_claim_is_accepted(verifier: Verifier, claims: dict[str, Any], expected: dict[str, Any]) -> None:
    assert verifier.verify(es256_key().mint(user_claims(**claims)), NOW) == dataclasses.replace(ADA, **expected)


REFUSED: list[tuple[str, dict[str, object], Reason]] = [
    ("exp is required", {"exp": ABSENT}, Reason.BAD_EXP),
    ("exp is not null", {"exp": None}, Reason.BAD_EXP),
    ("exp is not text", {"exp": str(NOW + 60)}, Reason.BAD_EXP),
    ("exp is not a bool", {"exp": True}, Reason.BAD_EXP),
    ("exp is not negative", {"exp": -1}, Reason.BAD_EXP),
    ("exp is not beyond the calendar", {"exp": 10**12}, Reason.BAD_EXP),
    ("exp is not a huge float", {"exp": 1e300}, Reason.BAD_EXP),
    ("an expired token", {"exp": NOW - LEEWAY}, Reason.EXPIRED),
    ("iat is required", {"iat": ABSENT}, Reason.BAD_IAT),
    ("iat is not a bool", {"iat": False}, Reason.BAD_IAT),
    ("iat is not a list", {"iat": [NOW]}, Reason.BAD_IAT),
    ("a token from the future", {"iat": NOW + LEEWAY + 1}, Reason.ISSUED_IN_FUTURE),
    ("nbf is a number where it is present", {"nbf": None}, Reason.BAD_NBF),
    ("a token before its time", {"nbf": NOW + LEEWAY + 1}, Reason.NOT_YET_VALID),
    ("iss is required", {"iss": ABSENT}, Reason.WRONG_ISSUER),
    ("iss is exact", {"iss": ISSUER + "/"}, Reason.WRONG_ISSUER),
    ("iss is not a list", {"iss": [ISSUER]}, Reason.WRONG_ISSUER),
    ("aud is required", {"aud": ABSENT}, Reason.WRONG_AUDIENCE),
    ("aud is ours", {"aud": "somebody-else"}, Reason.WRONG_AUDIENCE),
    ("aud is not a text that contains ours", {"aud": "unauthenticated"}, Reason.WRONG_AUDIENCE),
    ("aud is not an empty list", {"aud": []}, Reason.WRONG_AUDIENCE),
    ("aud is not an object", {"aud": {"authenticated": True}}, Reason.WRONG_AUDIENCE),
    ("role is required", {"role": ABSENT}, Reason.WRONG_ROLE),
    ("service_role has no business here", {"role": "service_role"}, Reason.WRONG_ROLE),
    ("anon has no business here", {"role": "anon"}, Reason.WRONG_ROLE),
    ("role is exact", {"role": "Authenticated"}, Reason.WRONG_ROLE),
    ("role is not a list", {"role": ["authenticated"]}, Reason.WRONG_ROLE),
    ("sub is required", {"sub": ABSENT}, Reason.BAD_SUB),
    ("sub is a UUID", {"sub": "ada"}, Reason.BAD_SUB),
    ("sub is a UUID with hyphens", {"sub": USER_ID.replace("-", "")}, Reason.BAD_SUB),
    ("sub is a UUID and nothing more", {"sub": USER_ID + "\n"}, Reason.BAD_SUB),
    ("sub is not a number", {"sub": 7}, Reason.BAD_SUB),
    ("a third-party OAuth client", {"client_id": "some-client"}, Reason.CLIENT_REFUSED),
    ("client_id is not empty", {"client_id": ""}, Reason.CLIENT_REFUSED),
    ("client_id is not a list", {"client_id": ["trusted-client"]}, Reason.CLIENT_REFUSED),
    ("is_anonymous is a bool", {"is_anonymous": "false"}, Reason.BAD_CLAIM),
    ("is_anonymous is not a number", {"is_anonymous": 0}, Reason.BAD_CLAIM),
    ("aal is a level that exists", {"aal": "aal9"}, Reason.BAD_CLAIM),
    ("aal is not a list", {"aal": ["aal2"]}, Reason.BAD_CLAIM),
    ("email is text", {"email": {"a": 1}}, Reason.BAD_CLAIM),
    ("email has no control characters", {"email": "a\x00@b.example"}, Reason.BAD_CLAIM),
    ("session_id is text", {"session_id": 5}, Reason.BAD_CLAIM),
]


@pytest.mark.parametrize(("claims", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_bad_claim_is_refused(verifier: Verifier, claims: dict[str, Any], reason: Reason) -> None:
    assert refusal(verifier, es256_key().mint(user_claims(**claims))) == reason


def test_the_issuer_is_not_looked_at_where_its_check_is_off(keys: HeldKeys) -> None:
    lenient = Verifier(dataclasses.replace(POLICY, issuer=None), keys)
    assert lenient.verify(es256_key().mint(user_claims(iss=ABSENT)), NOW).user_id == USER_ID


# --- attacks on the header and the signature -------------------------------------------------------------------------


def unsigned(header: Mapping[str, object]) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(user_claims()).encode())}."


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7, ["ES256"], "ES384", "PS256", "es256"])
def test_an_algorithm_that_is_not_listed_is_refused_before_any_key_is_looked_up(
    verifier: Verifier, keys: HeldKeys, alg: object
) -> None:
    assert refusal(verifier, unsigned({"alg": alg, "kid": "es-1"})) == Reason.ALGORITHM_REFUSED
    assert keys.looked_up == []


def test_a_header_without_an_algorithm_is_refused(verifier: Verifier) -> None:
    assert refusal(verifier, unsigned({"kid": "es-1"})) == Reason.ALGORITHM_REFUSED


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_a_public_key_does_not_serve_as_a_shared_secret(
    verifier: Verifier, keys: HeldKeys, encoding: serialization.Encoding
) -> None:
    public = rs256_key().private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    # PyJWT would refuse to sign with it, so the attacker signs by hand.
    assert refusal(verifier, mint_hs256(user_claims(), public, kid="rs-1")) == Reason.BAD_SIGNATURE
    assert keys.looked_up == []


def test_hs256_is_refused_where_no_secret_is_configured(keys: HeldKeys) -> None:
    without = Verifier(dataclasses.replace(POLICY, hs256_secret=None), keys)
    assert refusal(without, mint_hs256(user_claims())) == Reason.ALGORITHM_REFUSED


def test_hs256_is_refused_where_it_is_not_listed(keys: HeldKeys) -> None:
    without = Verifier(dataclasses.replace(POLICY, algorithms=("ES256",)), keys)
    assert refusal(without, mint_hs256(user_claims())) == Reason.ALGORITHM_REFUSED


def test_another_secret_is_refused(verifier: Verifier) -> None:
    assert refusal(verifier, mint_hs256(user_claims(), b"x" * 40)) == Reason.BAD_SIGNATURE


@pytest.mark.parametrize(("key", "other"), [(es256_key(), rs256_key()), (rs256_key(), es256_key())])
def test_a_key_verifies_its_own_algorithm_only(verifier: Verifier, key: SigningKey, other: SigningKey) -> None:
    assert refusal(verifier, key.mint(user_claims(), kid=other.kid)) == Reason.ALGORITHM_MISMATCH


def test_a_strangers_key_under_our_kid_is_refused(verifier: Verifier) -> None:
    stranger = SigningKey("es-1", "ES256", ec.generate_private_key(ec.SECP256R1()))
    assert refusal(verifier, stranger.mint(user_claims())) == Reason.BAD_SIGNATURE


def test_a_signature_on_another_curve_is_refused(verifier: Verifier) -> None:
    private = ec.generate_private_key(ec.SECP384R1())
    signing_input = f"{b64(header_with())}.{b64(json.dumps(user_claims()).encode())}"
    signature = jwt.get_algorithm_by_name("ES384").sign(signing_input.encode(), private)
    assert refusal(verifier, f"{signing_input}.{b64(signature)}") == Reason.BAD_SIGNATURE


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\xff" * 64, b"\x30" * 70, b"\0" * 256])
def test_a_made_up_signature_is_refused(verifier: Verifier, signature: bytes) -> None:
    payload = b64(json.dumps(user_claims()).encode())
    assert refusal(verifier, f"{b64(header_with())}.{payload}.{b64(signature)}") == Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "es-1' or '1'='1", "http://127.0.0.1/jwks", "es-1\0", "x" * 4000, "__class__"]
)
def test_a_kid_is_looked_up_and_nothing_else(verifier: Verifier, keys: HeldKeys, kid: str) -> None:
    assert refusal(verifier, es256_key().mint(user_claims(), kid=kid)) == Reason.UNKNOWN_KID
    assert keys.looked_up == [kid]


@pytest.mark.parametrize("kid", [ABSENT, None, "", 1, ["es-1"], {"kid": "es-1"}])
def test_without_a_kid_there_is_no_key(verifier: Verifier, kid: object) -> None:
    assert refusal(verifier, es256_key().mint(user_claims(), kid=kid)) == Reason.NO_KID


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64"])
def test_a_token_may_not_bring_its_own_key_or_rules(verifier: Verifier, keys: HeldKeys, name: str) -> None:
    stranger = SigningKey("es-1", "ES256", ec.generate_private_key(ec.SECP256R1()))
    value = stranger.jwk() if name == "jwk" else "https://attacker.example/jwks.json"
    assert refusal(verifier, stranger.mint(user_claims(), **{name: value})) == Reason.HEADER_REFUSED
    assert refusal(verifier, es256_key().mint(user_claims(), **{name: None})) == Reason.HEADER_REFUSED
    assert keys.looked_up == []


@pytest.mark.parametrize("typ", ["JWE", "logout+jwt", 1, None])
def test_another_type_of_token_is_refused(verifier: Verifier, typ: object) -> None:
    assert refusal(verifier, es256_key().mint(user_claims(), typ=typ)) == Reason.TYPE_REFUSED


def test_the_type_may_be_absent(verifier: Verifier) -> None:
    assert verifier.verify(es256_key().mint(user_claims(), typ=ABSENT), NOW) == ADA


# --- attacks on the form ---------------------------------------------------------------------------------------------

HEADERS: list[tuple[str, bytes, Reason]] = [
    ("one name twice", b'{"alg":"none","alg":"ES256","kid":"es-1"}', Reason.BAD_HEADER),
    ("a kid twice", b'{"alg":"ES256","kid":"es-1","kid":"es-2"}', Reason.BAD_HEADER),
    ("an array", b'["ES256"]', Reason.BAD_HEADER),
    ("a text", b'"ES256"', Reason.BAD_HEADER),
    ("nothing", b"", Reason.BAD_HEADER),
    ("not JSON", b"{alg:ES256}", Reason.BAD_HEADER),
    ("a deep nest", b"[" * 4000, Reason.BAD_HEADER),
    ("a deep nest in an object", b'{"alg":"ES256","a":' + b"[" * 4000, Reason.BAD_HEADER),
    ("NaN", b'{"alg":"ES256","kid":"es-1","a":NaN}', Reason.BAD_HEADER),
    ("5,000 digits", b'{"alg":"ES256","kid":"es-1","a":' + b"9" * 5000 + b"}", Reason.BAD_HEADER),
    ("UTF-16", '{"alg":"ES256","kid":"es-1"}'.encode("utf-16"), Reason.BAD_HEADER),
    ("not UTF-8", b'{"alg":"ES256","kid":"\xff"}', Reason.BAD_HEADER),
]
PAYLOADS: list[tuple[str, bytes]] = [
    ("an array", b"[]"),
    ("a text", b'"sub"'),
    ("a number", b"1"),
    ("null", b"null"),
    ("nothing", b""),
    ("not JSON", b"{sub:1}"),
    ("a deep nest", b"[" * 4000),
    ("NaN", b'{"exp":NaN}'),
    ("Infinity", b'{"exp":Infinity}'),
    ("not UTF-8", b'{"email":"\xff"}'),
    ("a lone surrogate", b'{"email":"\\ud800"}'),
    ("two objects", b"{}{}"),
]


@pytest.mark.parametrize(("header", "reason"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_malformed_header_is_refused(verifier: Verifier, keys: HeldKeys, header: bytes, reason: Reason) -> None:
    assert refusal(verifier, es256_key().mint_raw(header, b"{}")) == reason
    assert keys.looked_up == []


@pytest.mark.parametrize("payload", [row[1] for row in PAYLOADS], ids=[row[0] for row in PAYLOADS])
def test_a_malformed_payload_is_refused_though_its_signature_is_good(verifier: Verifier, payload: bytes) -> None:
    assert refusal(verifier, es256_key().mint_raw(header_with(), payload)) == Reason.BAD_PAYLOAD


@pytest.mark.parametrize("number", [b"1e400", b"9" * 5000, b"-9" + b"9" * 400], ids=["1e400", "5000 digits", "-400"])
def test_a_number_beyond_all_range_is_refused(verifier: Verifier, number: bytes) -> None:
    payload = json.dumps(user_claims(exp="?")).encode().replace(b'"?"', number)
    assert refusal(verifier, es256_key().mint_raw(header_with(), payload)) in (Reason.BAD_EXP, Reason.BAD_PAYLOAD)


def test_of_two_claims_with_one_name_the_last_counts(verifier: Verifier) -> None:
    payload = json.dumps(user_claims(role=ABSENT)).encode()[:-1]
    user = es256_key().mint_raw(header_with(), payload + b',"role":"service_role","role":"authenticated"}')
    service = es256_key().mint_raw(header_with(), payload + b',"role":"authenticated","role":"service_role"}')
    assert verifier.verify(user, NOW) == ADA
    assert refusal(verifier, service) == Reason.WRONG_ROLE


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("length", [1, 5, 10])
def test_a_truncated_token_is_refused(verifier: Verifier, part: int, length: int) -> None:
    parts = es256_key().mint(user_claims()).split(".")
    parts[part] = parts[part][:-length]
    with pytest.raises(Unauthenticated):
        verifier.verify(".".join(parts), NOW)


@pytest.mark.parametrize("at", ["start", "end", "middle"])
@pytest.mark.parametrize("junk", [" ", "\n", "\t", "\0", "=", "+", "/", "!", "\u00e9", "\ud800", "\u2003"])
def test_what_is_not_base64url_is_refused(verifier: Verifier, junk: str, at: str) -> None:
    token = es256_key().mint(user_claims())
    spoiled = {"start": junk + token, "end": token + junk, "middle": token.replace(".", junk + ".", 1)}[at]
    assert refusal(verifier, spoiled) == Reason.NOT_BASE64URL


def test_a_second_spelling_of_the_same_signature_is_refused(verifier: Verifier) -> None:
    token = es256_key().mint(user_claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]  # 64 bytes leave four bits over, which are zero
    assert base64.urlsafe_b64decode(twin.split(".")[2] + "==") == base64.urlsafe_b64decode(token.split(".")[2] + "==")
    assert refusal(verifier, twin) == Reason.NOT_BASE64URL


def test_a_changed_payload_is_refused(verifier: Verifier) -> None:
    header, _, signature = es256_key().mint(user_claims()).split(".")
    forged = b64(json.dumps(user_claims(sub="00000000-0000-4000-8000-000000000000")).encode())
    assert refusal(verifier, f"{header}.{forged}.{signature}") == Reason.BAD_SIGNATURE


@pytest.mark.parametrize("token", ["", ".", "a.b", "a.b.c.d", "." * 8000, '{"payload":"","signatures":[{},{}]}'])
def test_what_has_not_three_parts_is_refused(verifier: Verifier, token: str) -> None:
    assert refusal(verifier, token) == Reason.NOT_THREE_PARTS


def test_a_token_with_two_signatures_is_refused(verifier: Verifier) -> None:
    token = es256_key().mint(user_claims())
    assert refusal(verifier, f"{token}.{token.rsplit('.', 1)[1]}") == Reason.NOT_THREE_PARTS


def test_a_token_of_nine_kibibytes_is_refused_though_its_signature_is_good(verifier: Verifier) -> None:
    assert refusal(verifier, es256_key().mint(user_claims(pad="x" * 6800))) == Reason.TOO_LONG


def test_a_refusal_never_tells_the_caller_why(verifier: Verifier) -> None:
    with pytest.raises(Unauthenticated) as expired:
        verifier.verify(es256_key().mint(user_claims(exp=NOW - 60)), NOW)
    with pytest.raises(Unauthenticated) as forged:
        verifier.verify(es256_key().mint(user_claims())[:-8], NOW)
    assert (expired.value.detail, expired.value.code) == (forged.value.detail, forged.value.code)


# --- the Authorization header ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_one_bearer_token_is_taken(scheme: str) -> None:
    assert bearer_token([f"{scheme} a.b.c"]) == "a.b.c"


AUTHORIZATIONS: list[tuple[str, list[str], Reason]] = [
    ("no header", [], Reason.NO_HEADER),
    ("two headers", ["Bearer a.b.c", "Bearer a.b.c"], Reason.SEVERAL_HEADERS),
    ("two headers that a server has joined", ["Bearer a.b.c, Bearer a.b.c"], Reason.NOT_THREE_PARTS),
    ("an empty header", [""], Reason.NOT_BEARER),
    ("a token alone", ["a.b.c"], Reason.NOT_BEARER),
    ("another scheme", ["Basic YTpi"], Reason.NOT_BEARER),
    ("a longer scheme", ["BearerX a.b.c"], Reason.NOT_BEARER),
    ("a blank before the scheme", [" Bearer a.b.c"], Reason.NOT_BEARER),
    ("a tab after the scheme", ["Bearer\ta.b.c"], Reason.NOT_BEARER),
    ("the scheme alone", ["Bearer"], Reason.NOT_THREE_PARTS),
    ("no token", ["Bearer "], Reason.NOT_THREE_PARTS),
    ("an API key", ["Bearer sb_secret_abc"], Reason.NOT_THREE_PARTS),
    ("two tokens", ["Bearer a.b.c a.b.c"], Reason.NOT_THREE_PARTS),
    ("five parts, an encrypted token", ["Bearer a.b.c.d.e"], Reason.NOT_THREE_PARTS),
    ("more than 8 KiB", ["Bearer a.b." + "c" * 8189], Reason.TOO_LONG),
]


@pytest.mark.parametrize(
    ("values", "reason"), [row[1:] for row in AUTHORIZATIONS], ids=[row[0] for row in AUTHORIZATIONS]
)
def test_any_other_authorization_is_refused(values: list[str], reason: Reason) -> None:
    with pytest.raises(Unauthenticated) as refused:
        bearer_token(values)
    assert refused.value.reason == reason


@pytest.mark.parametrize("header", ["Bearer  {}", "Bearer {} ", "Bearer {}\t", "Bearer {},"])
def test_blanks_and_commas_around_a_token_are_refused(verifier: Verifier, header: str) -> None:
    value = header.format(es256_key().mint(user_claims()))
    assert refusal(verifier, bearer_token([value])) == Reason.NOT_BASE64URL


# --- the cache -------------------------------------------------------------------------------------------------------


def test_a_token_is_checked_once_and_then_remembered(verifier: Verifier, keys: HeldKeys) -> None:
    token = es256_key().mint(user_claims())
    first = verifier.verify(token, NOW)
    assert verifier.verify(token, NOW + 60) is first
    assert keys.looked_up == ["es-1"]


@pytest.mark.parametrize("mint", [lambda: es256_key().mint(user_claims()), lambda: mint_hs256(user_claims())])
def test_a_remembered_token_expires_to_the_second(verifier: Verifier, mint: Any) -> None:
    token = mint()
    verifier.verify(token, NOW)
    assert verifier.verify(token, NOW + 3600 + LEEWAY - 1).user_id == USER_ID
    assert refusal(verifier, token, NOW + 3600 + LEEWAY) == Reason.EXPIRED


def test_a_remembered_token_dies_when_its_kid_leaves(verifier: Verifier, keys: HeldKeys) -> None:
    token = es256_key().mint(user_claims())
    verifier.verify(token, NOW)
    del keys.keys["es-1"]
    assert refusal(verifier, token) == Reason.UNKNOWN_KID


def test_a_remembered_token_dies_when_its_kid_means_another_key(verifier: Verifier, keys: HeldKeys) -> None:
    token = es256_key().mint(user_claims())
    verifier.verify(token, NOW)
    keys.keys = read_jwks(jwks(SigningKey("es-1", "ES256", ec.generate_private_key(ec.SECP256R1()))))
    assert refusal(verifier, token) == Reason.BAD_SIGNATURE


def test_a_refused_token_is_not_remembered(verifier: Verifier, keys: HeldKeys) -> None:
    token = es256_key("es-2").mint(user_claims())
    assert refusal(verifier, token) == Reason.UNKNOWN_KID
    keys.keys |= read_jwks(jwks(es256_key("es-2")))
    assert verifier.verify(token, NOW) == ADA


def test_a_remembered_header_vouches_for_nothing_but_its_own_reading(verifier: Verifier) -> None:
    token = es256_key().mint(user_claims())
    verifier.verify(token, NOW)
    header, payload, _ = token.split(".")
    assert refusal(verifier, f"{header}.{payload}.{b64(bytes(64))}") == Reason.BAD_SIGNATURE


def test_the_cache_is_bounded_and_keeps_what_is_in_use(keys: HeldKeys) -> None:
    verifier = Verifier(POLICY, keys, cache_size=20)
    mine = es256_key().mint(user_claims())
    verifier.verify(mine, NOW)
    for number in range(100):
        verifier.verify(mint_hs256(user_claims(number=number)), NOW)
        verifier.verify(mine, NOW)
    assert keys.looked_up == ["es-1"], "a token in use stays while a hundred others pass"
    assert len(verifier._young) + len(verifier._old) <= 20


def test_where_no_keys_can_be_had_the_answer_is_unavailable_and_not_a_refusal(
    verifier: Verifier, keys: HeldKeys
) -> None:
    keys.unavailable = True
    with pytest.raises(Unavailable):
        verifier.verify(es256_key().mint(user_claims()), NOW)
    assert verifier.verify(mint_hs256(user_claims()), NOW) == ADA, "HS256 needs no key from there"


def test_32_threads_get_each_their_own_users_claims_while_the_cache_turns_over(keys: HeldKeys) -> None:
    verifier = Verifier(POLICY, keys, cache_size=16)
    users = [f"00000000-0000-4000-8000-{number:012d}" for number in range(32)]
    tokens = {user: mint_hs256(user_claims(sub=user)) for user in users}
    wrong: list[object] = []
    start = threading.Barrier(32)

    def ask(offset: int) -> None:
        start.wait()
        for step in range(300):
            user = users[(offset + step * (offset % 3 + 1)) % 32]
            try:
                if verifier.verify(tokens[user], NOW).user_id != user:
                    wrong.append(user)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- the policy ------------------------------------------------------------------------------------------------------


def test_the_secret_does_not_show_in_the_policys_repr() -> None:
    assert SECRET.decode() not in repr(POLICY)
    assert "secret" not in repr(POLICY)


PUBLIC_PEM = (
    rs256_key()
    .private.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("a secret under 32 bytes", {"hs256_secret": b"x" * 31}),
    ("an empty secret", {"hs256_secret": b""}),
    ("a public key as the secret", {"hs256_secret": PUBLIC_PEM}),
    ("no algorithm", {"algorithms": ()}),
    ("alg none", {"algorithms": ("ES256", "none")}),
    ("an algorithm we do not speak", {"algorithms": ("ES512",)}),
    ("a leeway over 30 s", {"leeway_seconds": 31}),
    ("a negative leeway", {"leeway_seconds": -1}),
    ("an empty issuer", {"issuer": ""}),
    ("an empty audience", {"audience": ""}),
]


@pytest.mark.parametrize("values", [row[1] for row in POLICIES], ids=[row[0] for row in POLICIES])
def test_an_unsafe_policy_cannot_be_made(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|secret"):
        TokenPolicy(**{"issuer": ISSUER, **values})


def test_a_verifier_by_secret_alone_needs_no_keys_and_any_other_does() -> None:
    alone = Verifier(TokenPolicy(issuer=ISSUER, algorithms=("HS256",), hs256_secret=SECRET), None)
    assert alone.verify(mint_hs256(user_claims()), NOW) == ADA
    with pytest.raises(ValueError, match="source of keys"):
        Verifier(TokenPolicy(issuer=ISSUER), None)
    with pytest.raises(ValueError, match="secret"):
        Verifier(TokenPolicy(issuer=ISSUER, algorithms=("HS256",)), HeldKeys())
