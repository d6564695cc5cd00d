"""Who asks: a signed-in user by their access token, or an API key."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from server.data.api_keys import KEY_PREFIX, ApiKey, KeyRing
from server.data.clients import Database, Supabase
from server.data.queries import Once
from server.errors import Forbidden
from server.features.keys.rules import Scope, may
from server.http.tokens import Claims, Verifier

Principal = Claims | ApiKey


@dataclass(frozen=True, slots=True)
class Door:
    """Tells who a credential belongs to, and opens the database in their name."""

    verifier: Verifier
    keys: KeyRing
    supabase: Supabase

    def identify(self, credential: str, request_id: str, before_guess: Callable[[], None]) -> Principal:
        """Return whose it is. Raises Unauthenticated, for a key Unavailable, and what `before_guess` raises.

        That is called before a key is looked up that may be a mere guess.
        """
        if credential.startswith(KEY_PREFIX):
            return self.keys.find(credential, request_id, before_guess)
        return self.verifier.verify(credential, time.time())

    def open(self, credential: str, request_id: str, once: Once | None) -> Database:
        """Return the database as the holder of the credential sees it."""
        enter = self.supabase.as_key if credential.startswith(KEY_PREFIX) else self.supabase.as_user
        return enter(credential, request_id, once)


def principal_id(principal: Principal) -> str:
    """Return the id of the user or key: whom limits count for, and under whom answers are kept."""
    return principal.id if isinstance(principal, ApiKey) else principal.user_id


def require_scope(key: ApiKey, needed: Scope | None) -> None:
    """Refuse a key that may not do what needs `needed`. None: nothing that any key may do. Raises Forbidden."""
    if needed is None:
        raise Forbidden("This needs a signed-in person, not an API key.", code="users_only")
    if not may(key.scopes, needed):
        raise Forbidden(f"This needs a key with the scope {needed}.", code="scope_missing")
