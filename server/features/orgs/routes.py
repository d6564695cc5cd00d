"""Organisations: create, list, read, change, transfer, delete."""

from uuid import UUID

from server.errors import Conflict, Forbidden, InvalidInput, NotFound, PreconditionFailed
from server.features.orgs import rules, store
from server.features.orgs.schemas import (
    Organisation,
    OrganisationDraft,
    OrganisationPatch,
    OrganisationQuery,
    Transfer,
)
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature
from server.http.step_up import confirm_session

feature = Feature("Organisations")


@feature.route(
    "POST", "/v1/orgs", status=201, body=OrganisationDraft, answers=Organisation, refusals=(Forbidden,), users_only=True
)
def create_org(call: Call, body: OrganisationDraft) -> Reply:
    """Create an organisation. You become its owner; anonymous users cannot."""
    if not rules.may_found(is_anonymous=call.user.is_anonymous):
        raise Forbidden(
            "Anonymous users cannot create organisations. Add an e-mail address to the account first.",
            code="anonymous_users_create_nothing",
        )
    created = store.create(call.database, body.name)
    return replies.one(Organisation, created, status=201, location="/v1/orgs/{id}")


@feature.route("GET", "/v1/orgs", query=OrganisationQuery, list_of=Organisation)
def list_orgs(call: Call, query: OrganisationQuery) -> Reply:
    """List the organisations that you belong to, newest first unless `order` says otherwise."""
    return replies.page(Organisation, store.list_page(call.database, query), query)


@feature.route("GET", "/v1/orgs/<uuid:org_id>", answers=Organisation, refusals=(NotFound,))
def read_org(call: Call, org_id: UUID) -> Reply:
    """Read one organisation."""
    return replies.one(Organisation, store.read(call.database, org_id))


@feature.route(
    "PATCH",
    "/v1/orgs/<uuid:org_id>",
    body=OrganisationPatch,
    answers=Organisation,
    refusals=(NotFound, Forbidden, PreconditionFailed),
)
def update_org(call: Call, org_id: UUID, body: OrganisationPatch) -> Reply:
    """Change an organisation. Admins rename it; owners, with a second factor, say whether it demands one."""
    current = replies.read_row(Organisation, store.read(call.database, org_id))
    if not rules.may_administer(current.my_role):
        raise Forbidden("Renaming an organisation needs the role admin or owner.")
    changes = body.model_dump(exclude_unset=True)
    if changes.get("require_aal2", current.require_aal2) != current.require_aal2:
        _require_second_factor_of_owner(call, current)
    return replies.one(Organisation, store.update(call.database, org_id, changes, call.version))


@feature.route(
    "POST",
    "/v1/orgs/<uuid:org_id>/transfer",
    body=Transfer,
    answers=Organisation,
    refusals=(NotFound, Forbidden, Conflict, InvalidInput),
    users_only=True,
)
def transfer_org(call: Call, org_id: UUID, body: Transfer) -> Reply:
    """Hand your ownership to another member; you become admin. Needs a session that Auth confirms now."""
    confirm_session(call)
    return replies.one(Organisation, store.transfer(call.database, org_id, body.user_id))


@feature.route(
    "DELETE", "/v1/orgs/<uuid:org_id>", status=204, refusals=(NotFound, Forbidden, PreconditionFailed), users_only=True
)
def delete_org(call: Call, org_id: UUID) -> Reply:
    """Delete an organisation with everything in it. Needs the role owner, and a session that Auth confirms now."""
    confirm_session(call)
    store.delete(call.database, org_id, call.version)
    return replies.nothing()


def _require_second_factor_of_owner(call: Call, current: Organisation) -> None:
    if not rules.may_own(current.my_role):
        raise Forbidden("Saying whether a second factor is demanded needs the role owner.")
    if not rules.is_assured(call.user.aal):
        raise Forbidden(
            "Changing require_aal2 needs a session with a second factor. Verify one with Supabase Auth first.",
            code="aal2_required",
        )
