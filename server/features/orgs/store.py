"""Organisations in the database."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, table
from server.http.pagination import PageQuery, paged

COLUMNS = ("id", "name", "my_role", "plan", "created_at", "updated_at", "version")


def create(database: Database, name: str) -> bytes:
    """Create an organisation with the caller as its owner; return it as a JSON object."""
    return database.execute(call("create_organisation", {"name": name}))


def list_page(database: Database, page: PageQuery) -> bytes:
    """Return the caller's organisations as a JSON array."""
    return database.execute(paged(table("organisations").select(*COLUMNS), page))


def read(database: Database, org_id: UUID) -> bytes:
    """Return one organisation as a one-element JSON array. Raises NotFound."""
    return database.execute_one(table("organisations").select(*COLUMNS).eq("id", org_id).limit(1))


def rename(database: Database, org_id: UUID, name: str, version: int | None) -> bytes | None:
    """Rename it; return it as a JSON object, or None where it has moved past `version`."""
    arguments = {"org_id": str(org_id), "name": name, "expected_version": version}
    renamed = database.execute(call("rename_organisation", arguments))
    return None if renamed == b"null" else renamed


def delete(database: Database, org_id: UUID, version: int | None) -> None:
    """Delete it with all that is in it. Raises NotFound, Forbidden, PreconditionFailed."""
    database.execute(call("delete_organisation", {"org_id": str(org_id), "expected_version": version}))
