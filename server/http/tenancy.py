"""Whose a new thing is to be: the organisation that the body names, or the only one that the caller belongs to."""

from uuid import UUID

from server.data.api_keys import ApiKey
from server.data.memberships import read_memberships
from server.errors import Fault, Forbidden, InvalidInput
from server.features.keys.rules import role_of
from server.features.orgs.rules import Role, is_at_least
from server.http.routing import Call


def org_to_write_to(call: Call, wanted: UUID | None, needs: Role = Role.EDITOR) -> UUID:
    """Return the organisation; costs one upstream call, for an API key none. Raises InvalidInput, Forbidden."""
    roles = _roles(call)
    if wanted is None:
        wanted = _the_only_one(list(roles))
    elif wanted not in roles:
        raise _invalid("org_not_found", "You belong to no organisation with this id.")
    role = roles[wanted]
    if role is None or not is_at_least(role, needs):
        raise Forbidden(f"This needs the role {needs} or above in the organisation.")
    return wanted


def _roles(call: Call) -> dict[UUID, Role | None]:
    if isinstance(call.principal, ApiKey):
        return {call.principal.org_id: role_of(call.principal.scopes)}
    return {org_id: Role(role) for org_id, role in read_memberships(call.database, call.user.user_id).items()}


def _the_only_one(org_ids: list[UUID]) -> UUID:
    if not org_ids:
        raise _invalid("org_required", "You belong to no organisation yet. Create one first: POST /v1/orgs.")
    if len(org_ids) > 1:
        raise _invalid("org_required", "You belong to several organisations: say which one.")
    return org_ids[0]


def _invalid(code: str, detail: str) -> InvalidInput:
    return InvalidInput(faults=[Fault("/org_id", code, detail)])
