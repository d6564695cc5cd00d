"""Mints access tokens as Supabase Auth does, and serves their public keys from a real HTTP server on loopback."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from server.data.jwks import JWKS_PATH

ISSUER: Final = "https://abcdefghijklmnop.supabase.co/auth/v1"
USER_ID: Final = "5f0c3a52-6f0e-4a57-9f0a-6d2b1d1a7c11"
SESSION_ID: Final = "0b7f2c88-0b0f-4c53-8d0e-2f2f3f1d9a10"
SECRET: Final = b"a-secret-of-the-tests-that-is-long-enough"
NOW: Final = 1_800_000_000
ABSENT: Final = object()


@dataclass(frozen=True)
class SigningKey:
    """A private key with the kid and algorithm it signs under."""

    kid: str
    algorithm: str
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)

    def jwk(self, **changes: object) -> dict[str, Any]:
        """Return the public JWK as Supabase publishes it; ABSENT leaves a member out."""
        public = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key(), as_dict=True)
        public |= {"kid": self.kid, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"], "ext": True}
        return changed(public, changes)

    def mint(self, claims: Mapping[str, Any], **headers: object) -> str:
        """Return a signed token; ABSENT leaves a header out."""
        header = changed({"alg": self.algorithm, "kid": self.kid, "typ": "JWT"}, headers)
        return self.mint_raw(json.dumps(header).encode(), json.dumps(claims).encode())

    def mint_raw(self, header: bytes, payload: bytes) -> str:
        """Return a correctly signed token around any bytes, well formed or not."""
        signing_input = f"{b64(header)}.{b64(payload)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signing_input}.{b64(algorithm.sign(signing_input.encode(), self.private))}"


def changed(members: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Return the members with the changes applied; ABSENT takes a member away."""
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}


def user_claims(**changes: object) -> dict[str, Any]:
    """Return what Supabase Auth puts into a signed-in user's access token at NOW; ABSENT leaves a claim out."""
    return changed(
        {
            "iss": ISSUER,
            "sub": USER_ID,
            "aud": "authenticated",
            "exp": NOW + 3600,
            "iat": NOW,
            "email": "ada@example.org",
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {"email": "ada@example.org", "email_verified": True, "sub": USER_ID},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": NOW}],
            "session_id": SESSION_ID,
            "is_anonymous": False,
        },
        changes,
    )


def mint_hs256(claims: Mapping[str, Any], secret: bytes = SECRET, **headers: object) -> str:
    """Return a token signed with a shared secret."""
    header = changed({"alg": "HS256", "typ": "JWT"}, headers)
    signing_input = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signing_input}.{b64(jwt.get_algorithm_by_name('HS256').sign(signing_input.encode(), secret))}"


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def es256_key(kid: str = "es-1") -> SigningKey:
    """Return a P-256 key, the same one for the same kid."""
    return SigningKey(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


@cache
def rs256_key(kid: str = "rs-1", bits: int = 2048) -> SigningKey:
    """Return an RSA key, the same one for the same kid."""
    return SigningKey(kid, "RS256", rsa.generate_private_key(public_exponent=65537, key_size=bits))


def jwks(*keys: SigningKey) -> bytes:
    """Return the JWK set of the keys."""
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


class JwksServer:
    """A JWKS endpoint whose answer a test sets: `status`, `body`, `headers`; `fetches` counts the requests.

    `hold()` makes it keep requests waiting until `release()`; `drip` sends blanks one by one, forever;
    `promised_bytes` is the Content-Length where it lies (None: the truth).
    """

    def __init__(self, *keys: SigningKey) -> None:
        self.status = 200
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self.body = jwks(*keys)
        self.drip = False
        self.promised_bytes: int | None = None
        self.paths: list[str] = []
        self.arrived = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def origin(self) -> str:
        """The value of SUPABASE_URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The address of the JWKS."""
        return self.origin + JWKS_PATH

    @property
    def fetches(self) -> int:
        """How often the endpoint was asked."""
        return len(self.paths)

    def publish(self, *keys: SigningKey) -> None:
        """Answer with these keys from now on."""
        self.status, self.body = 200, jwks(*keys)

    def hold(self) -> None:
        """Keep requests waiting."""
        self._open.clear()

    def release(self) -> None:
        """Let them go."""
        self._open.set()

    def close(self) -> None:
        """Stop listening; later connections are refused."""
        self._closing.set()
        self._open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request as set."""
        self.paths.append(handler.path)
        self.arrived.set()
        self._open.wait()
        try:
            handler.send_response(self.status)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            if not self.drip and "Transfer-Encoding" not in self.headers:
                length = len(self.body) if self.promised_bytes is None else self.promised_bytes
                handler.send_header("Content-Length", str(length))
            handler.end_headers()
            if not self.drip:
                handler.wfile.write(self.body)
            while self.drip and not self._closing.wait(0.02):
                handler.wfile.write(b" ")
        except OSError:
            pass  # the caller has gone, which is what such a test is about
        handler.close_connection = True


def _handler_for(endpoint: JwksServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            endpoint.answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            pass

    return Handler


@contextmanager
def serve_jwks(keys: Sequence[SigningKey]) -> Iterator[JwksServer]:
    """Serve the keys for the length of a `with` block."""
    server = JwksServer(*keys)
    try:
        yield server
    finally:
        server.close()
