"""Who am I?"""

from datetime import UTC, datetime
from uuid import UUID

from server.data.failures import read_rows
from server.features.me import store
from server.features.me.schemas import Me, Membership
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Me")


@feature.route("GET", "/v1/me", answers=Me)
def read_me(call: Call) -> Reply:
    """Say who you are, and which organisations you belong to."""
    user = call.user
    rows = read_rows(store.memberships(call.database, user.user_id))
    me = Me(
        id=UUID(user.user_id),
        email=user.email,
        is_anonymous=user.is_anonymous,
        token_expires_at=datetime.fromtimestamp(user.expires_at, UTC),
        memberships=[
            Membership(org_id=row["org_id"], org_name=row["organisations"]["name"], role=row["role"]) for row in rows
        ],
    )
    return replies.shaped(me)
