"""Who am I?"""

from datetime import UTC, datetime
from uuid import UUID

from server.data.api_keys import ApiKey
from server.data.failures import read_rows
from server.features.keys.rules import Scope
from server.features.me import store
from server.features.me.schemas import Me, Membership
from server.http import replies
from server.http.principals import Principal
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Me")


@feature.route("GET", "/v1/me", answers=Me)
def read_me(call: Call) -> Reply:
    """Say who you are, and which organisations you belong to."""
    memberships = [
        Membership(org_id=row["id"], org_name=row["name"], role=row["my_role"])
        for row in read_rows(store.memberships(call.database))
    ]
    return replies.shaped(_describe(call.principal, memberships))


def _describe(principal: Principal, memberships: list[Membership]) -> Me:
    if isinstance(principal, ApiKey):
        return Me(
            kind="key",
            id=UUID(principal.id),
            email=None,
            is_anonymous=False,
            token_expires_at=principal.expires_at,
            scopes=sorted(Scope(scope) for scope in principal.scopes),
            memberships=memberships,
        )
    return Me(
        kind="user",
        id=UUID(principal.user_id),
        email=principal.email,
        is_anonymous=principal.is_anonymous,
        token_expires_at=datetime.fromtimestamp(principal.expires_at, UTC),
        scopes=None,
        memberships=memberships,
    )
