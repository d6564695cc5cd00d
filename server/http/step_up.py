"""What cannot be undone asks for more than a valid token: a session that Auth confirms now, or a second factor.

In a token that has not expired, neither sign-out nor a ban can be seen. The second factor (`aal`) can.
"""

from server.errors import Forbidden
from server.features.orgs.rules import is_assured
from server.http.routing import Call


def confirm_session(call: Call) -> None:
    """Return if Supabase Auth says at this moment that the session stands; costs one call of Auth.

    Raises Unauthenticated, Unavailable.
    """
    call.services.auth_api.confirm_session(call.access_token)


def require_assurance(call: Call, *, require_aal2: bool) -> None:
    """Return if the session has shown the second factor, or the organisation does not demand one (`require_aal2`).

    The counterpart of private.require_assurance in the database, which has the last word. Raises Forbidden, with the
    code aal2_required.
    """
    if not is_assured(call.user.aal, require_aal2=require_aal2):
        raise Forbidden(
            "This organisation demands a second factor here. Verify one with Supabase Auth, then try again.",
            code="aal2_required",
        )
