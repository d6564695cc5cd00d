"""Invitations in the database."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import call
from server.http.pagination import PageQuery, before_arguments


def create(database: Database, org_id: UUID, email: str, role: str, token_hash: str) -> bytes:
    """Invite an address; return the invitation as a JSON object. Raises NotFound, Forbidden, Conflict."""
    arguments = {"org_id": str(org_id), "email": email, "role": role, "token_hash": token_hash}
    return database.execute(call("create_invitation", arguments))


def list_page(database: Database, org_id: UUID, page: PageQuery) -> bytes:
    """Return a page of open invitations, newest first, as a JSON array. Raises NotFound, Forbidden."""
    return database.execute(call("list_invitations", {"org_id": str(org_id), **before_arguments(page)}))


def resend(database: Database, org_id: UUID, invitation_id: UUID, token_hash: str) -> bytes:
    """Give it another token and another week; return it as a JSON object. Raises NotFound, Forbidden, Conflict."""
    arguments = {"org_id": str(org_id), "invitation_id": str(invitation_id), "token_hash": token_hash}
    return database.execute(call("resend_invitation", arguments))


def revoke(database: Database, org_id: UUID, invitation_id: UUID, version: int | None) -> None:
    """Take it back. Raises NotFound, Forbidden, Conflict, PreconditionFailed."""
    arguments = {"org_id": str(org_id), "invitation_id": str(invitation_id), "expected_version": version}
    database.execute(call("revoke_invitation", arguments))


def accept(database: Database, token: str) -> bytes:
    """Make the caller a member; return {org_id, org_name, role}. Raises NotFound, Forbidden, Conflict, Gone."""
    return database.execute(call("accept_invitation", {"token": token}))
