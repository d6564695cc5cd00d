"""API keys: create, list, read, rotate, revoke. People do that, never a key."""

import base64
import hashlib
from datetime import UTC, datetime
from uuid import UUID

from server.data.api_keys import KEY_PREFIX
from server.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound, PreconditionFailed
from server.features.keys import store
from server.features.keys.schemas import ApiKey, ApiKeyDraft, ApiKeyQuery, NewApiKey, RotationDraft
from server.features.orgs.rules import Role
from server.http import replies
from server.http.idempotency import fresh_secret
from server.http.replies import Reply
from server.http.routing import Call, Feature
from server.http.step_up import confirm_session
from server.http.tenancy import org_to_write_to

feature = Feature("API keys")


@feature.route(
    "POST", "/v1/api-keys", status=201, body=ApiKeyDraft, answers=NewApiKey, refusals=(Forbidden,), users_only=True
)
def create_api_key(call: Call, body: ApiKeyDraft) -> Reply:
    """Create a key for servers and CI. The answer holds its secret, this once.

    Needs the role admin or owner, a session that Auth confirms now, and the second factor where the organisation
    demands one.
    """
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise InvalidInput(faults=[Fault("/expires_at", "in_the_past", "This must be a time to come.")])
    confirm_session(call)
    org_id = org_to_write_to(call, body.org_id, needs=Role.ADMIN)
    secret = spell_secret(fresh_secret(call, "api_key"))
    created = store.create(call.database, org_id, body.name, secret, body.scopes, body.expires_at)
    return _shown_once(created, secret)


@feature.route("GET", "/v1/api-keys", query=ApiKeyQuery, list_of=ApiKey, users_only=True)
def list_api_keys(call: Call, query: ApiKeyQuery) -> Reply:
    """List the keys of the organisations that you administer, newest first."""
    return replies.page(ApiKey, store.list_page(call.database, query, query.org_id), query)


@feature.route("GET", "/v1/api-keys/<uuid:key_id>", answers=ApiKey, refusals=(NotFound,), users_only=True)
def read_api_key(call: Call, key_id: UUID) -> Reply:
    """Read one key."""
    return replies.one(ApiKey, store.read(call.database, key_id))


@feature.route(
    "POST",
    "/v1/api-keys/<uuid:key_id>/rotate",
    status=201,
    body=RotationDraft,
    answers=NewApiKey,
    refusals=(NotFound, Forbidden, Conflict),
    users_only=True,
)
def rotate_api_key(call: Call, key_id: UUID, body: RotationDraft) -> Reply:
    """Make a key's successor, with the same name, scopes and lifetime; the old key goes on for a while beside it."""
    confirm_session(call)
    secret = spell_secret(fresh_secret(call, "api_key"))
    return _shown_once(store.rotate(call.database, key_id, secret, body.overlap_seconds), secret)


@feature.route(
    "DELETE",
    "/v1/api-keys/<uuid:key_id>",
    status=204,
    refusals=(NotFound, Forbidden, PreconditionFailed),
    users_only=True,
)
def revoke_api_key(call: Call, key_id: UUID) -> Reply:
    """Revoke a key. It is refused everywhere within 5 seconds, and stays in the list."""
    store.revoke(call.database, key_id, call.version)
    return replies.nothing()


def spell_secret(bits: bytes) -> str:
    """Spell a key of 256 bits: `tocsin_`, eight characters to know it by, `_`, and the rest."""
    # What tells keys apart in lists says nothing about the secret.
    known_by = base64.b32encode(hashlib.sha256(bits).digest()).decode()[:8]
    return f"{KEY_PREFIX}{known_by}_{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"


def _shown_once(created: bytes, secret: str) -> Reply:
    key = replies.read_row(ApiKey, created)
    return replies.shaped(NewApiKey(**key.model_dump(), secret=secret), status=201)
