"""Supabase Auth, asked directly: whether a session still stands, and whether Auth answers at all.

Sign-out and bans cannot be seen in a token that has not expired, so operations that cannot be undone ask here first.
"""

import requests

from server.errors import Unauthenticated, Unavailable

TIMEOUT_SECONDS = 3.0


class AuthApi:
    """The two questions. Each call uses a session of its own: cookies and proxies of the environment stay out."""

    def __init__(self, supabase_url: str, publishable_key: str) -> None:
        self._url = f"{supabase_url}/auth/v1"
        self._publishable_key = publishable_key

    def confirm_session(self, access_token: str) -> None:
        """Return if the session behind this token still stands. Raises Unauthenticated, Unavailable."""
        status = self._get("/user", {"Authorization": f"Bearer {access_token}"})
        if status in {401, 403, 404}:
            raise Unauthenticated(reason=f"auth_refused_session: {status}")
        if status != 200:
            raise Unavailable(
                "Supabase Auth does not answer at the moment.", retry_after_seconds=1, reason=f"auth: {status}"
            )

    def is_healthy(self) -> bool:
        """Tell whether Auth answers."""
        return self._get("/health", {}) == 200

    def _get(self, path: str, headers: dict[str, str]) -> int:
        with requests.Session() as session:
            session.trust_env = False
            try:
                answer = session.get(
                    self._url + path,
                    headers={"apikey": self._publishable_key, **headers},
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                raise Unavailable(
                    "Supabase Auth does not answer at the moment.", retry_after_seconds=1, reason=type(error).__name__
                ) from None
            return answer.status_code
