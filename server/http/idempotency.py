"""Idempotency-Key: the same POST sent again is answered as it was the first time, and does nothing.

The key commits in the transaction of the write itself (`public.once`), so it holds whatever dies between.
Only what was written is kept: a request that was refused is judged anew. After 24 hours a key is forgotten.
Source: draft-ietf-httpapi-idempotency-key-header; the manners are Stripe's.
"""

import hashlib
import re
import secrets
from typing import TYPE_CHECKING

import orjson

from server.data.queries import Once
from server.errors import Fault, MalformedRequest
from server.http.principals import principal_id

if TYPE_CHECKING:
    from server.http.routing import Call

_FORM = re.compile(r"[\x21-\x7e]{1,255}")
SECRET_BYTES = 32


def read_once(header: str | None, method: str, path: str, body: bytes) -> Once | None:
    """Return the key that a request came with, and the request's fingerprint: method, path, and the body's meaning.

    A body is the same however its JSON is spelled. Raises MalformedRequest.
    """
    if header is None:
        return None
    if not _FORM.fullmatch(header):
        fault = Fault(
            "Idempotency-Key", "idempotency_key_form", "Send 1 to 255 visible ASCII characters, such as a UUID."
        )
        raise MalformedRequest("The Idempotency-Key cannot be used.", faults=[fault])
    meaning = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS) if body else b""
    fingerprint = hashlib.sha256(b"\0".join([method.encode(), path.encode(), meaning])).hexdigest()
    return Once(header, fingerprint)


def fresh_secret(call: "Call", label: str) -> bytes:
    """Return 256 bits that nobody can guess, for a secret that is shown once; `label` says what for.

    Under an Idempotency-Key they follow from it and from the server's own secret, so that a repetition can show the
    same secret again although it is stored nowhere.
    """
    if call.once is None:
        return secrets.token_bytes(SECRET_BYTES)
    seed = "\0".join([label, principal_id(call.principal), call.once.key, call.once.fingerprint])
    return call.services.derive_secret(seed)
