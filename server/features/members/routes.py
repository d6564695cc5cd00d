"""Members: list, read, change their role, remove, leave."""

from uuid import UUID

from server.errors import Conflict, Forbidden, NotFound, PreconditionFailed
from server.features.members import rules, store
from server.features.members.schemas import Member, MemberPatch, MembershipToChange
from server.http import replies
from server.http.pagination import PageQuery
from server.http.replies import Reply
from server.http.routing import Call, Feature
from server.http.step_up import require_assurance

feature = Feature("Members")


@feature.route("GET", "/v1/orgs/<uuid:org_id>/members", query=PageQuery, list_of=Member, refusals=(NotFound,))
def list_members(call: Call, org_id: UUID, query: PageQuery) -> Reply:
    """List who belongs to an organisation, newest first. Every member may."""
    return replies.page(Member, store.list_page(call.database, org_id, query), query, by="joined_at", key="user_id")


@feature.route("GET", "/v1/orgs/<uuid:org_id>/members/<uuid:user_id>", answers=Member, refusals=(NotFound,))
def read_member(call: Call, org_id: UUID, user_id: UUID) -> Reply:
    """Read one member."""
    return replies.one(Member, store.read(call.database, org_id, user_id))


@feature.route(
    "PATCH",
    "/v1/orgs/<uuid:org_id>/members/<uuid:user_id>",
    body=MemberPatch,
    answers=Member,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
    users_only=True,
)
def change_member(call: Call, org_id: UUID, user_id: UUID, body: MemberPatch) -> Reply:
    """Change a role. Admins change up to admin, owners everybody; the last owner stays owner (`last_owner`)."""
    current = _membership_to_change(call, org_id, user_id)
    if not rules.may_change(current.my_role, current.role, body.role):
        raise Forbidden(
            f"As {current.my_role} you cannot make {_a(current.role)} into {_a(body.role)}: admins change roles up to"
            " admin, owners every role."
        )
    if rules.makes_or_unmakes_an_owner(current.role, body.role):
        require_assurance(call, require_aal2=current.require_aal2)
    _require_version(call, current)
    changed = store.change_role(call.database, org_id, user_id, body.role, call.version)
    return replies.one(Member, changed)


@feature.route(
    "DELETE",
    "/v1/orgs/<uuid:org_id>/members/<uuid:user_id>",
    status=204,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
    users_only=True,
)
def remove_member(call: Call, org_id: UUID, user_id: UUID) -> Reply:
    """Remove a member, or leave: yourself. Admins remove up to admin, owners everybody but the last owner."""
    current = _membership_to_change(call, org_id, user_id)
    if not rules.may_remove(current.my_role, current.role, is_me=str(user_id) == call.user.user_id):
        raise Forbidden(f"As {current.my_role} you cannot remove {_a(current.role)}.")
    if rules.makes_or_unmakes_an_owner(current.role):
        require_assurance(call, require_aal2=current.require_aal2)
    _require_version(call, current)
    store.remove(call.database, org_id, user_id, call.version)
    return replies.nothing()


@feature.route(
    "POST", "/v1/orgs/<uuid:org_id>/leave", status=204, refusals=(NotFound, Forbidden, Conflict), users_only=True
)
def leave_org(call: Call, org_id: UUID) -> Reply:
    """Leave an organisation. Everybody may, but for its last owner (`last_owner`)."""
    store.leave(call.database, org_id)
    return replies.nothing()


def _membership_to_change(call: Call, org_id: UUID, user_id: UUID) -> MembershipToChange:
    return replies.read_row(MembershipToChange, store.read_for_writing(call.database, org_id, user_id))


def _require_version(call: Call, current: MembershipToChange) -> None:
    if call.version is not None and call.version != current.version:
        raise PreconditionFailed


def _a(role: str) -> str:
    return f"{'a' if role == 'viewer' else 'an'} {role}"
