"""Organisations in the database."""

from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, table
from server.http.pagination import PageQuery, paged

COLUMNS = ("id", "name", "my_role", "plan", "require_aal2", "created_at", "updated_at", "version")


def create(database: Database, name: str) -> bytes:
    """Create an organisation with the caller as its owner; return it as a JSON object."""
    return database.execute(call("create_organisation", {"name": name}))


def list_page(database: Database, page: PageQuery) -> bytes:
    """Return the caller's organisations as a JSON array."""
    return database.execute(paged(table("organisations").select(*COLUMNS), page))


def read(database: Database, org_id: UUID) -> bytes:
    """Return one organisation as a one-element JSON array. Raises NotFound."""
    return database.execute_one(table("organisations").select(*COLUMNS).eq("id", org_id).limit(1))


def update(database: Database, org_id: UUID, changes: dict[str, Any], version: int | None) -> bytes:
    """Change {name, require_aal2} of it; return it as a JSON object. Raises NotFound, Forbidden, PreconditionFailed."""
    arguments = {"org_id": str(org_id), "changes": changes, "expected_version": version}
    return database.execute(call("update_organisation", arguments))


def transfer(database: Database, org_id: UUID, user_id: UUID) -> bytes:
    """Make a member owner and the caller admin; return it as a JSON object.

    Raises NotFound, Forbidden, InvalidInput (member_not_found), Conflict (already_owner).
    """
    return database.execute(call("transfer_organisation", {"org_id": str(org_id), "user_id": str(user_id)}))


def delete(database: Database, org_id: UUID, version: int | None) -> None:
    """Delete it with all that is in it. Raises NotFound, Forbidden, PreconditionFailed."""
    database.execute(call("delete_organisation", {"org_id": str(org_id), "expected_version": version}))
