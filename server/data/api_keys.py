"""API keys as the door knows them: looked up in the database, remembered for seconds, never longer.

Row-level security looks at the key again at every statement, so what is remembered here decides no more
than which refusal is explained how, and for whom the limits count.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from uuid import UUID

from server.data.clients import Supabase
from server.data.failures import read_answer
from server.data.queries import call
from server.errors import Unauthenticated

KEY_PREFIX = "tocsin_"
# A revoked key is refused everywhere within 5 s; the difference is for the look-up itself.
REMEMBERED_SECONDS = 4.0
MAX_REMEMBERED = 10_000
_FORM = re.compile(r"tocsin_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}")


def is_key(secret: str) -> bool:
    """Tell whether this has the form of a key: only then can it be one, and go into a header."""
    return _FORM.fullmatch(secret) is not None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that stands: of one organisation, with its scopes. `expires_at` None: it does not run out."""

    id: str
    org_id: UUID
    scopes: frozenset[str]
    expires_at: datetime | None


@dataclass(slots=True)
class _Entry:
    lock: Lock = field(default_factory=Lock)
    looked_up_at: float = float("-inf")
    key: ApiKey | None = None


class KeyRing:
    """Finds the key behind a secret. `monotonic` is a clock in seconds."""

    def __init__(self, supabase: Supabase, monotonic: Callable[[], float]) -> None:
        self._supabase = supabase
        self._monotonic = monotonic
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._lock = Lock()

    def find(self, secret: str, request_id: str, before_guess: Callable[[], None]) -> ApiKey:
        """Return the key; one upstream call where it was not looked up within the last seconds, else none.

        Requests that come meanwhile wait for that one look-up. `before_guess` is called where the secret was never
        good here, and may refuse: else each of a million guesses would cost the database a look. Raises
        Unauthenticated, Unavailable.
        """
        if not is_key(secret):
            raise Unauthenticated(reason="api_key_form")
        digest = hashlib.sha256(secret.encode()).digest()
        met = self._entries.get(digest)
        if met is None or met.key is None:
            before_guess()
        entry = self._entry(digest)
        if self._monotonic() - entry.looked_up_at > REMEMBERED_SECONDS:
            with entry.lock:
                if self._monotonic() - entry.looked_up_at > REMEMBERED_SECONDS:
                    began = self._monotonic()
                    entry.key = self._look_up(secret, request_id)
                    entry.looked_up_at = began
        if entry.key is None:
            raise Unauthenticated(reason="api_key_unknown_revoked_or_expired")
        return entry.key

    def _entry(self, digest: bytes) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(digest, _Entry())
            self._entries.move_to_end(digest)
            if len(self._entries) > MAX_REMEMBERED:
                self._entries.popitem(last=False)
            return entry

    def _look_up(self, secret: str, request_id: str) -> ApiKey | None:
        found = read_answer(self._supabase.as_key(secret, request_id).execute(call("my_key", {})))
        if found is None:
            return None
        expires_at = found["expires_at"]
        return ApiKey(
            id=found["id"],
            org_id=UUID(found["org_id"]),
            scopes=frozenset(found["scopes"]),
            expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
        )
