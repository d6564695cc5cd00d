"""Access tokens as Supabase Auth signs them (ES256), for users that exist only here.

The key is fixed so that every process of a run agrees on it without passing it around. It protects nothing.
"""

import json
import uuid
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER_PATH = "/auth/v1"
KEY_ID = "3c1d9a52-6f3e-4c1b-9d53-benchmarks00"
SECRET_SCALAR = 0x1F2E3D4C5B6A798877665544332211000F1E2D3C4B5A69788796A5B4C3D2E1F0

SIGNING_KEY = ec.derive_private_key(SECRET_SCALAR, ec.SECP256R1())
_PUBLIC = {**ECAlgorithm.to_jwk(SIGNING_KEY.public_key(), as_dict=True), "kid": KEY_ID, "alg": "ES256", "use": "sig"}
JWKS = json.dumps({"keys": [{**_PUBLIC, "key_ops": ["verify"], "ext": True}]}, separators=(",", ":")).encode()


def subject(number: int) -> str:
    """Return the id of user `number`."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"benchmark-user-{number}"))


def mint(number: int, issuer: str, now: datetime, lifetime: timedelta = timedelta(hours=1)) -> str:
    """Return an access token of user `number`, with the claims that Supabase Auth sets."""
    issued = int(now.astimezone(UTC).timestamp())
    claims = {
        "iss": issuer,
        "sub": subject(number),
        "aud": "authenticated",
        "exp": issued + int(lifetime.total_seconds()),
        "iat": issued,
        "email": f"user{number}@example.com",
        "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "user_metadata": {"email_verified": True},
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": issued}],
        "session_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"benchmark-session-{number}")),
        "is_anonymous": False,
    }
    return jwt.encode(claims, SIGNING_KEY, algorithm="ES256", headers={"kid": KEY_ID})
