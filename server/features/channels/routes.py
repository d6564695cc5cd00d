"""Channels: create, list, delete. Testing one makes a delivery: see there."""

import base64
from uuid import UUID

from pydantic import BaseModel

from server.errors import Forbidden, NotFound, PreconditionFailed
from server.features.channels import store
from server.features.channels.schemas import Channel, ChannelDraft, ChannelQuery, NewChannel
from server.features.orgs.rules import Role, may_edit
from server.http import replies
from server.http.idempotency import fresh_secret
from server.http.replies import Reply
from server.http.routing import Call, Feature
from server.http.tenancy import org_to_write_to

feature = Feature("Channels")


class _Standing(BaseModel):
    version: int
    my_role: Role


@feature.route("POST", "/v1/channels", status=201, body=ChannelDraft, answers=NewChannel, refusals=(Forbidden,))
def create_channel(call: Call, body: ChannelDraft) -> Reply:
    """Create a webhook channel. The answer holds its signing secret, this once."""
    org_id = org_to_write_to(call, body.org_id)
    secret = signing_secret(fresh_secret(call, "channel"))
    row = {"org_id": str(org_id), "kind": body.kind, "name": body.name, "url": body.url, "secret": secret}
    created = replies.read_row(Channel, store.create(call.database, row))
    shown = NewChannel(**created.model_dump(), secret=secret)
    return replies.shaped(shown, status=201)


@feature.route("GET", "/v1/channels", query=ChannelQuery, list_of=Channel)
def list_channels(call: Call, query: ChannelQuery) -> Reply:
    """List channels, newest first unless `order` says otherwise."""
    return replies.page(Channel, store.list_page(call.database, query, query.org_id), query)


@feature.route(
    "DELETE", "/v1/channels/<uuid:channel_id>", status=204, refusals=(NotFound, Forbidden, PreconditionFailed)
)
def delete_channel(call: Call, channel_id: UUID) -> Reply:
    """Delete a channel, and with it what it has not been told yet."""
    current = replies.read_row(_Standing, store.read_for_writing(call.database, channel_id))
    if not may_edit(current.my_role):
        raise Forbidden("Deleting channels needs the role editor, admin or owner.")
    if not store.delete(call.database, channel_id, call.version):
        raise PreconditionFailed if call.version is not None else NotFound
    return replies.nothing()


def signing_secret(bits: bytes) -> str:
    """Spell a signing secret (Standard Webhooks: whsec_ and base64)."""
    return "whsec_" + base64.b64encode(bits).decode()
