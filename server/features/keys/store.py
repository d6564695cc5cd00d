"""API keys in the database, which knows the hash of a secret alone."""

import hashlib
from datetime import datetime
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, table
from server.features.keys.rules import Scope
from server.http.pagination import PageQuery, paged

COLUMNS = "id,org_id,name,prefix,scopes,created_by,created_at,expires_at,last_used_at,revoked_at,replaced_by,version"
_PREFIX_CHARACTERS = len("tocsin_") + 8


def create(
    database: Database, org_id: UUID, name: str, secret: str, scopes: list[Scope], expires_at: datetime | None
) -> bytes:
    """Create a key; return it, without the secret, as a JSON object."""
    arguments = {
        "org_id": str(org_id),
        "name": name,
        **_stored(secret),
        "scopes": scopes,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    return database.execute(call("create_api_key", arguments))


def list_page(database: Database, page: PageQuery, org_id: UUID | None) -> bytes:
    """Return a page of keys as a JSON array."""
    query = table("api_keys").select(COLUMNS)
    if org_id is not None:
        query = query.eq("org_id", org_id)
    return database.execute(paged(query, page))


def read(database: Database, key_id: UUID) -> bytes:
    """Return one key as a one-element JSON array. Raises NotFound."""
    return database.execute_one(table("api_keys").select(COLUMNS).eq("id", key_id).limit(1))


def rotate(database: Database, key_id: UUID, secret: str, overlap_seconds: int) -> bytes:
    """Make a key's successor; return it, without the secret, as a JSON object. Raises NotFound, Forbidden, Conflict."""
    arguments = {"key_id": str(key_id), **_stored(secret), "overlap_seconds": overlap_seconds}
    return database.execute(call("rotate_api_key", arguments))


def revoke(database: Database, key_id: UUID, version: int | None) -> None:
    """Revoke a key for good. Raises NotFound, Forbidden, PreconditionFailed."""
    database.execute(call("revoke_api_key", {"key_id": str(key_id), "expected_version": version}))


def _stored(secret: str) -> dict[str, str]:
    return {"prefix": secret[:_PREFIX_CHARACTERS], "secret_hash": hashlib.sha256(secret.encode()).hexdigest()}
