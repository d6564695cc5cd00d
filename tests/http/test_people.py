"""Invitations and members before the database is asked, what goes to it, and the mail."""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import responses
from flask.testing import FlaskClient

from server.app import create_app
from server.settings import read_settings
from tests.http.conftest import ENVIRONMENT, ORG_ID, SUPABASE_URL, FakeUpstream
from tests.http.test_errors import is_problem
from tests.http.test_parsing import INVITATION, MEMBERSHIP_TO_CHANGE, ORGANISATION

PAGE = "https://app.example.com/join"
INVITATIONS = f"/v1/orgs/{ORG_ID}/invitations"
RESEND = f"{INVITATIONS}/{INVITATION['id']}/resend"
MEMBER = f"/v1/orgs/{ORG_ID}/members/{INVITATION['id']}"
OTP = f"{SUPABASE_URL}/auth/v1/otp"
DRAFT = {"email": "grace@example.com", "role": "editor"}


@pytest.fixture(scope="module")
def mailing_upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture(scope="module")
def mailing(mailing_upstream: FakeUpstream) -> FlaskClient:
    """The API of an installation whose frontend has a page for invitations."""
    settings = read_settings({**ENVIRONMENT, "INVITATION_URL": PAGE})
    return create_app(settings, mailing_upstream).test_client()  # type: ignore[arg-type]  # stands in for the session


@pytest.fixture
def auth() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as auth:
        yield auth


@pytest.mark.parametrize(("path", "body", "status"), [(INVITATIONS, DRAFT, 201), (RESEND, None, 200)])
def test_auth_mails_the_invited_a_link_that_leads_to_the_page(
    mailing, mailing_upstream, auth, signed_in, path, body, status
):
    auth.post(OTP, json={})
    mailing_upstream.answer(INVITATION)
    answer = mailing.post(path, json=body, headers=signed_in)
    assert (answer.status_code, answer.json["email_sent"]) == (status, True)
    (mailed,) = [call.request for call in auth.calls]
    leads_to = parse_qs(urlsplit(mailed.url).query)["redirect_to"]
    assert leads_to == [f"{PAGE}?token={answer.json['token']}"], "Auth needs the fragment for itself"
    assert json.loads(mailed.body) == {"email": "grace@example.com", "create_user": True}
    assert mailed.headers["apikey"] == ENVIRONMENT["SUPABASE_PUBLISHABLE_KEY"]
    assert "Authorization" not in mailed.headers
    assert answer.json["link"] == f"{PAGE}#token={answer.json['token']}"


@pytest.mark.parametrize(
    "failure", [{"status": 429}, {"status": 422}, {"status": 500}, {"body": requests.ConnectTimeout("slow")}], ids=str
)
def test_a_mail_that_could_not_be_sent_does_not_undo_the_invitation(
    mailing, mailing_upstream, auth, signed_in, failure, caplog
):
    auth.post(OTP, **failure)
    mailing_upstream.answer(INVITATION)
    answer = mailing.post(INVITATIONS, json=DRAFT, headers=signed_in)
    assert (answer.status_code, answer.json["email_sent"]) == (201, False)
    assert answer.json["link"]
    for secret in (answer.json["token"], DRAFT["email"]):
        assert secret not in caplog.text
    assert "mail_not_sent" in caplog.text


def test_without_a_page_there_is_a_token_to_pass_on_and_no_mail(client, upstream, auth, signed_in):
    upstream.answer(INVITATION)
    answer = client.post(INVITATIONS, json=DRAFT, headers=signed_in)
    assert (answer.json["link"], answer.json["email_sent"]) == (None, False)
    assert len(answer.json["token"]) == 43, "256 bits"
    assert len(auth.calls) == 0


def test_the_database_is_told_the_hash_of_a_token_that_is_never_the_same(client, upstream, signed_in):
    tokens = set()
    for path, body in ((INVITATIONS, DRAFT), (INVITATIONS, DRAFT), (RESEND, None)):
        upstream.answer(INVITATION)
        token = client.post(path, json=body, headers=signed_in).json["token"]
        told = upstream.requests[-1].content
        assert json.loads(told)["token_hash"] == sha256(token.encode()).hexdigest()
        assert token.encode() not in told
        tokens.add(token)
    assert len(tokens) == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "invitation_not_found"),
        (403, "email_not_verified"),
        (403, "invitation_for_another_address"),
        (409, "invitation_used"),
        (409, "already_member"),
        (410, "invitation_expired"),
        (410, "invitation_revoked"),
    ],
)
def test_a_refused_invitation_says_what_to_do(client, upstream, signed_in, status, code):
    upstream.answer({"code": f"PT{status}", "message": code, "details": "What to do."}, status)
    answer = client.post("/v1/invitations/accept", json={"token": "x"}, headers=signed_in)
    is_problem(answer, status, code)
    assert answer.json["detail"] == "What to do."


@pytest.mark.parametrize(
    "email", ["", "grace", "grace@", "@example.com", "a b@example.com", "a@b@c.de", "a@b", "x" * 255]
)
def test_what_is_no_address_is_not_invited(client, upstream, signed_in, email):
    answer = client.post(INVITATIONS, json={"email": email, "role": "editor"}, headers=signed_in)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/email"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "body"), [(INVITATIONS, DRAFT), (RESEND, None), ("/v1/invitations/accept", {"token": "x"})]
)
def test_an_anonymous_user_neither_invites_nor_joins(client, upstream, token, path, body):
    headers = {"Authorization": f"Bearer {token(is_anonymous=True)}"}
    is_problem(client.post(path, json=body, headers=headers), 403, "anonymous_users_create_nothing")
    assert upstream.requests == []


def test_the_token_of_a_third_partys_oauth_client_opens_nothing(client, upstream, token):
    headers = {"Authorization": f"Bearer {token(client_id='some-app')}"}
    is_problem(client.post("/v1/invitations/accept", json={"token": "x"}, headers=headers), 401, "unauthenticated")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("current", "method", "body", "code"),
    [
        ({"my_role": "editor"}, "PATCH", {"role": "editor"}, "forbidden"),
        ({"my_role": "admin"}, "PATCH", {"role": "owner"}, "forbidden"),
        ({"my_role": "admin", "role": "owner"}, "PATCH", {"role": "viewer"}, "forbidden"),
        ({"my_role": "admin", "role": "owner"}, "DELETE", None, "forbidden"),
        ({"my_role": "viewer"}, "DELETE", None, "forbidden"),
        ({"require_aal2": True}, "PATCH", {"role": "owner"}, "aal2_required"),
        ({"require_aal2": True, "role": "owner"}, "PATCH", {"role": "viewer"}, "aal2_required"),
        ({"require_aal2": True, "role": "owner"}, "DELETE", None, "aal2_required"),
    ],
)
def test_who_has_no_say_over_a_member_is_told_why_and_nothing_is_written(
    client, upstream, signed_in, current, method, body, code
):
    upstream.answer([{**MEMBERSHIP_TO_CHANGE, **current}])
    is_problem(client.open(MEMBER, method=method, json=body, headers=signed_in), 403, code)
    assert len(upstream.requests) == 1


def test_a_second_factor_opens_what_owners_do(client, upstream, token: Callable[..., str]):
    upstream.answer([{**MEMBERSHIP_TO_CHANGE, "require_aal2": True, "role": "owner"}])
    upstream.answer({})
    headers = {"Authorization": f"Bearer {token(aal='aal2')}"}
    assert client.delete(MEMBER, headers=headers).status_code == 204


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"": "nothing_to_change"}),
        ({"name": None}, {"/name": "string_type"}),
        ({"require_aal2": None}, {"/require_aal2": "bool_type"}),
        ({"require_aal2": "yes", "plan": 1}, {"/require_aal2": "bool_type", "/plan": "unknown_field"}),
    ],
)
def test_a_patch_of_an_organisation_is_checked_like_any_other(client, upstream, signed_in, body, expected):
    answer = client.patch(f"/v1/orgs/{ORG_ID}", json=body, headers=signed_in)
    assert {fault["pointer"]: fault["code"] for fault in answer.json["errors"]} == expected
    assert upstream.requests == []


def test_only_what_a_patch_names_goes_to_the_database(client, upstream, token):
    headers = {"Authorization": f"Bearer {token(aal='aal2')}"}
    patches: list[dict[str, Any]] = [{"name": "New"}, {"require_aal2": True}, {"name": "New", "require_aal2": True}]
    for body in patches:
        upstream.answer([ORGANISATION])
        upstream.answer(ORGANISATION)
        assert client.patch(f"/v1/orgs/{ORG_ID}", json=body, headers=headers).status_code == 200
        assert json.loads(upstream.requests[-1].content or b"")["changes"] == body
