"""Invitations: create, list, send again, revoke, accept."""

import base64
from uuid import UUID

from server.errors import Conflict, Forbidden, Gone, NotFound, PreconditionFailed
from server.features.invitations import rules, store
from server.features.invitations.schemas import Invitation, InvitationDraft, InvitationToken, Joined, NewInvitation
from server.features.orgs.rules import may_found
from server.http import replies
from server.http.idempotency import fresh_secret
from server.http.pagination import PageQuery
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Invitations")


@feature.route(
    "POST",
    "/v1/orgs/<uuid:org_id>/invitations",
    status=201,
    body=InvitationDraft,
    answers=NewInvitation,
    refusals=(NotFound, Forbidden, Conflict),
    limit="costly",
    users_only=True,
)
def create_invitation(call: Call, org_id: UUID, body: InvitationDraft) -> Reply:
    """Invite somebody by e-mail address, for seven days. Admins invite up to admin, owners owners too.

    `already_member` and `already_invited` are refused; send an open invitation again instead.
    """
    _require_account(call)
    token = spell_token(fresh_secret(call, "invitation"))
    created = store.create(call.database, org_id, body.email, body.role, rules.token_hash(token))
    return _shown_once(call, created, token, status=201)


@feature.route(
    "GET",
    "/v1/orgs/<uuid:org_id>/invitations",
    query=PageQuery,
    list_of=Invitation,
    refusals=(NotFound, Forbidden),
    users_only=True,
)
def list_invitations(call: Call, org_id: UUID, query: PageQuery) -> Reply:
    """List the open invitations of an organisation, newest first, expired ones too. Needs the role admin or owner."""
    return replies.page(Invitation, store.list_page(call.database, org_id, query), query)


@feature.route(
    "POST",
    "/v1/orgs/<uuid:org_id>/invitations/<uuid:invitation_id>/resend",
    answers=NewInvitation,
    refusals=(NotFound, Forbidden, Conflict),
    limit="costly",
    users_only=True,
)
def resend_invitation(call: Call, org_id: UUID, invitation_id: UUID) -> Reply:
    """Send an open invitation again: a new token, seven more days. The link before it is dead."""
    _require_account(call)
    token = spell_token(fresh_secret(call, "invitation"))
    renewed = store.resend(call.database, org_id, invitation_id, rules.token_hash(token))
    return _shown_once(call, renewed, token)


@feature.route(
    "DELETE",
    "/v1/orgs/<uuid:org_id>/invitations/<uuid:invitation_id>",
    status=204,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
    users_only=True,
)
def revoke_invitation(call: Call, org_id: UUID, invitation_id: UUID) -> Reply:
    """Take an open invitation back."""
    store.revoke(call.database, org_id, invitation_id, call.version)
    return replies.nothing()


@feature.route(
    "POST",
    "/v1/invitations/accept",
    body=InvitationToken,
    answers=Joined,
    refusals=(NotFound, Forbidden, Conflict, Gone),
    users_only=True,
)
def accept_invitation(call: Call, body: InvitationToken) -> Reply:
    """Accept an invitation as the owner of the address that it was sent to.

    403 `email_not_verified`: verify your address; 403 `invitation_for_another_address`: sign in with the other one;
    404 `invitation_not_found`: use the latest link; 409 `invitation_used`, `already_member`; 410 `invitation_expired`,
    `invitation_revoked`: ask for another.
    """
    _require_account(call)
    return replies.shaped(replies.read_row(Joined, store.accept(call.database, body.token)))


def spell_token(bits: bytes) -> str:
    """Spell a token so that it can stand in a link."""
    return base64.urlsafe_b64encode(bits).decode().rstrip("=")


def _require_account(call: Call) -> None:
    if not may_found(is_anonymous=call.user.is_anonymous):
        raise Forbidden(
            "Anonymous users cannot invite or be invited. Add an e-mail address to the account first.",
            code="anonymous_users_create_nothing",
        )


def _shown_once(call: Call, raw: bytes, token: str, *, status: int = 200) -> Reply:
    """Mail the invitation where there is a page to lead to, and show its token to the inviter, this once.

    It is committed by now, and a mail that fails does not undo it: the inviter can pass the link on.
    """
    invitation, page_url = replies.read_row(Invitation, raw), call.services.settings.invitation_url
    link, email_sent = None, False
    if page_url is not None:
        link = rules.link_to_pass_on(page_url, token)
        email_sent = call.services.auth_api.send_sign_in_link(
            invitation.email, redirect_to=rules.link_in_mail(page_url, token)
        )
    shown = NewInvitation(**invitation.model_dump(), token=token, link=link, email_sent=email_sent)
    return replies.shaped(shown, status=status)
