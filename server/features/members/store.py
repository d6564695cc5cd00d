"""Members in the database."""

from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, table
from server.http.pagination import PageQuery, before_arguments


def list_page(database: Database, org_id: UUID, page: PageQuery) -> bytes:
    """Return a page of members, newest first, as a JSON array. Raises NotFound."""
    return database.execute(call("list_members", {"org_id": str(org_id), **before_arguments(page)}))


def read(database: Database, org_id: UUID, user_id: UUID) -> bytes:
    """Return one member as a JSON object. Raises NotFound."""
    return database.execute(call("read_member", _ids(org_id, user_id)))


def read_for_writing(database: Database, org_id: UUID, user_id: UUID) -> bytes:
    """Return {role, version, my_role, require_aal2} of one membership as a one-element JSON array. Raises NotFound."""
    query = (
        table("memberships")
        .select("role", "version", "...organisations!memberships_org_id_fkey(my_role,require_aal2)")
        .eq("org_id", org_id)
        .eq("user_id", user_id)
        .limit(1)
    )
    return database.execute_one(query)


def change_role(database: Database, org_id: UUID, user_id: UUID, role: str, version: int | None) -> bytes:
    """Change what a member is; return the member as a JSON object.

    Raises NotFound, Forbidden, Conflict (last_owner), PreconditionFailed.
    """
    arguments = _ids(org_id, user_id) | {"role": role, "expected_version": version}
    return database.execute(call("change_member_role", arguments))


def remove(database: Database, org_id: UUID, user_id: UUID, version: int | None) -> None:
    """Remove a member. Raises NotFound, Forbidden, Conflict (last_owner), PreconditionFailed."""
    database.execute(call("remove_member", _ids(org_id, user_id) | {"expected_version": version}))


def leave(database: Database, org_id: UUID) -> None:
    """End the caller's own membership. Raises NotFound, Forbidden, Conflict (last_owner)."""
    database.execute(call("leave_organisation", {"org_id": str(org_id)}))


def _ids(org_id: UUID, user_id: UUID) -> dict[str, Any]:
    return {"org_id": str(org_id), "user_id": str(user_id)}
