"""Organisations: create, list, read, rename, delete."""

from uuid import UUID

from server.errors import Conflict, Forbidden, NotFound, PreconditionFailed
from server.features.orgs import rules, store
from server.features.orgs.schemas import Organisation, OrganisationDraft, OrganisationQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

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
    body=OrganisationDraft,
    answers=Organisation,
    refusals=(NotFound, Forbidden, PreconditionFailed),
)
def rename_org(call: Call, org_id: UUID, body: OrganisationDraft) -> Reply:
    """Rename an organisation. Needs the role admin or owner."""
    current = replies.read_row(Organisation, store.read(call.database, org_id))
    if not rules.may_administer(current.my_role):
        raise Forbidden("Renaming an organisation needs the role admin or owner.")
    renamed = store.rename(call.database, org_id, body.name, call.version)
    if renamed is None:
        raise PreconditionFailed if call.version is not None else Conflict
    return replies.one(Organisation, renamed)


@feature.route(
    "DELETE", "/v1/orgs/<uuid:org_id>", status=204, refusals=(NotFound, Forbidden, PreconditionFailed), users_only=True
)
def delete_org(call: Call, org_id: UUID) -> Reply:
    """Delete an organisation with everything in it. Needs the role owner, and a session that Auth confirms now."""
    call.services.auth_api.confirm_session(call.access_token)
    store.delete(call.database, org_id, call.version)
    return replies.nothing()
