"""Whose a new thing is to be: the organisation that the body names, or the only one that the caller belongs to."""

from uuid import UUID

from server.data.memberships import read_memberships
from server.errors import Fault, Forbidden, InvalidInput
from server.features.orgs.rules import Role, may_edit
from server.http.routing import Call


def org_to_write_to(call: Call, wanted: UUID | None) -> UUID:
    """Return the organisation; costs one upstream call. Raises InvalidInput, Forbidden."""
    roles = read_memberships(call.database, call.user.user_id)
    if wanted is None:
        wanted = _the_only_one(list(roles))
    elif wanted not in roles:
        raise _invalid("org_not_found", "You belong to no organisation with this id.")
    if not may_edit(Role(roles[wanted])):
        raise Forbidden("This needs the role editor, admin or owner in the organisation.")
    return wanted


def _the_only_one(org_ids: list[UUID]) -> UUID:
    if not org_ids:
        raise _invalid("org_required", "You belong to no organisation yet. Create one first: POST /v1/orgs.")
    if len(org_ids) > 1:
        raise _invalid("org_required", "You belong to several organisations: say which one.")
    return org_ids[0]


def _invalid(code: str, detail: str) -> InvalidInput:
    return InvalidInput(faults=[Fault("/org_id", code, detail)])
