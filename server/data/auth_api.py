"""Supabase Auth, asked directly: whether a session still stands, whether Auth answers at all, and for a mail.

Sign-out and bans cannot be seen in a token that has not expired, so operations that cannot be undone ask here first.
"""

import logging

import requests

from server.errors import Unauthenticated, Unavailable

TIMEOUT_SECONDS = 3.0
MAIL_TIMEOUT_SECONDS = 8.0  # Auth answers once its SMTP server has taken the mail
log = logging.getLogger("tocsin.auth")


class AuthApi:
    """The questions, and the mail. Each call has a session of its own: no cookies, no proxies of the environment."""

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

    def send_sign_in_link(self, email: str, *, redirect_to: str) -> bool:
        """Let Auth mail a link that signs its reader in, as a new user if need be, and leads on to `redirect_to`.

        Return False where Auth refused (its limits on mails, sign-ups closed, a captcha demanded) or did not answer.
        Auth leads to its site URL instead where the project's "Redirect URLs" do not allow `redirect_to`.
        Source: supabase/auth, internal/api/otp.go; the same call as supabase-js' signInWithOtp without PKCE.
        """
        with requests.Session() as session:
            session.trust_env = False
            try:
                answer = session.post(
                    f"{self._url}/otp",
                    params={"redirect_to": redirect_to},
                    headers={"apikey": self._publishable_key},
                    json={"email": email, "create_user": True},
                    timeout=MAIL_TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                log.warning("mail_not_sent: %s", type(error).__name__)
                return False
        if answer.status_code != 200:
            log.warning("mail_not_sent: %s", answer.status_code)
        return answer.status_code == 200

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
