"""Invitations, roles, leaving, ownership and the second factor: real users, the API's own process, a real Postgres."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import requests

from server.features.members.rules import may_change, may_remove
from server.features.orgs.rules import Role
from tests.stack.conftest import EmbeddedSupabase, User, sign_up_at
from tests.stack.product import Api, eventually, running_api
from tests.stack.sql import ROLES, acting_as, make_user, refusal, rows, value
from tests.stack.test_isolation import mint

PAGE = "https://app.example.com/join"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has signed up, and their way to the API."""

    user: User
    api: Api

    @property
    def id(self) -> str:
        """Their id, as the API spells it."""
        return str(self.user.id)


@pytest.fixture(scope="module")
def people_api(own_supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(own_supabase, tmp_path_factory.mktemp("api"), INVITATION_URL=PAGE) as api:
        yield api


@pytest.fixture(scope="module")
def somebody(people_api: Api, own_supabase: EmbeddedSupabase) -> Callable[[], Person]:
    """Sign up somebody new."""

    def somebody() -> Person:
        user = sign_up_at(own_supabase)
        return Person(user, people_api.as_user(user.access_token))

    return somebody


@pytest.fixture
def owner(somebody: Callable[[], Person]) -> Person:
    return somebody()


@pytest.fixture
def org(owner: Person) -> str:
    """The path of an organisation of the owner's."""
    return f"/v1/orgs/{owner.api.ask('POST', '/v1/orgs', json={'name': 'Acme'})['id']}"


@pytest.fixture
def join(connection: psycopg.Connection, org: str, somebody: Callable[[], Person]) -> Callable[[str], Person]:
    """Put somebody new into the organisation."""

    def join(role: str) -> Person:
        person = somebody()
        connection.execute(
            "insert into memberships (org_id, user_id, role) values (%s, %s, %s)", [org_id(org), person.id, role]
        )
        return person

    return join


def org_id(org: str) -> str:
    return org.rpartition("/")[2]


def invite(by: Person, org: str, email: str, role: str = "editor") -> dict[str, Any]:
    invitation: dict[str, Any] = by.api.ask("POST", f"{org}/invitations", json={"email": email, "role": role})
    return invitation


def accept(person: Person, token: str) -> requests.Response:
    return person.api.send("POST", "/v1/invitations/accept", json={"token": token})


def verdict(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"] if answer.content else ""


def role_of(person: Person, org: str) -> str | None:
    return {m["org_id"]: m["role"] for m in person.api.ask("GET", "/v1/me")["memberships"]}.get(org_id(org))


# --- invitations ------------------------------------------------------------------------------------------------------


def test_an_invitation_makes_a_member_once(owner: Person, org: str, somebody, connection: psycopg.Connection):
    guest = somebody()
    invitation = invite(owner, org, guest.user.email.upper())
    assert invitation["link"] == f"{PAGE}#token={invitation['token']}"
    assert invitation["email_sent"] is True, "the embedded Auth prints its mails"
    assert [i["id"] for i in owner.api.ask("GET", f"{org}/invitations")["data"]] == [invitation["id"]]
    joined = accept(guest, invitation["token"])
    assert joined.json() == {"org_id": org_id(org), "org_name": "Acme", "role": "editor"}
    assert role_of(guest, org) == "editor"
    assert verdict(accept(guest, invitation["token"])) == (409, "invitation_used")
    assert owner.api.ask("GET", f"{org}/invitations")["data"] == []
    stored = rows(connection, "select to_jsonb(i)::text from invitations i where id = %s", [invitation["id"]])
    assert invitation["token"] not in str(stored)
    happened = rows(
        connection,
        "select type, actor_id::text from events where org_id = %s and subject_kind = 'invitation' order by seq",
        [org_id(org)],
    )
    assert happened == [("invitation.created", owner.id), ("invitation.accepted", guest.id)]


def test_somebody_without_an_account_joins_by_auths_mail(
    owner: Person, org: str, own_supabase: EmbeddedSupabase, people_api: Api, tmp_path_factory, connection
):
    email = f"new-{uuid4()}@example.com"
    token = invite(owner, org, email)["token"]
    mails = "".join(log.read_text() for log in tmp_path_factory.getbasetemp().glob("own-supabase*/supabase.log"))
    (code,) = re.findall(r"\b\d{6}\b", mails.partition(email)[2])[:1]
    verified = requests.post(
        f"{own_supabase.url}/auth/v1/verify",
        headers={"apikey": own_supabase.publishable_key},
        json={"type": "magiclink", "email": email, "token": code},
        timeout=30,
    )
    assert verified.ok, verified.text
    api = people_api.as_user(verified.json()["access_token"])
    assert api.ask("POST", "/v1/invitations/accept", json={"token": token})["role"] == "editor"


def test_a_stranger_with_a_stolen_link_learns_that_it_is_not_theirs_and_nothing_else(owner, org, somebody, connection):
    guest, thief = somebody(), somebody()
    answers = []
    for state in ("open", "expired", "revoked"):
        invitation = invite(owner, org, guest.user.email)
        if state == "expired":
            connection.execute("update invitations set expires_at = now() where id = %s", [invitation["id"]])
        if state != "open":
            answers.append(accept(thief, invitation["token"]))
        owner.api.ask("DELETE", f"{org}/invitations/{invitation['id']}")
        answers.append(accept(thief, invitation["token"]))
    invitation = invite(owner, org, guest.user.email)
    assert accept(guest, invitation["token"]).ok
    answers.append(accept(thief, invitation["token"]))
    assert {verdict(answer) for answer in answers} == {(403, "invitation_for_another_address")}
    for answer in answers:
        assert guest.user.email not in answer.text
        assert org_id(org) not in answer.text
        assert "Acme" not in answer.text


def test_expired_revoked_and_unknown_tokens_are_told_apart_to_whom_they_are_meant_for(owner, org, somebody, connection):
    guest = somebody()
    invitation = invite(owner, org, guest.user.email)
    connection.execute("update invitations set expires_at = now() - interval '1 s' where id = %s", [invitation["id"]])
    assert verdict(accept(guest, invitation["token"])) == (410, "invitation_expired")
    owner.api.ask("DELETE", f"{org}/invitations/{invitation['id']}")
    assert verdict(accept(guest, invitation["token"])) == (410, "invitation_revoked")
    assert verdict(accept(guest, "no such token")) == (404, "invitation_not_found")
    path = f"{org}/invitations/{invitation['id']}"
    assert owner.api.send("DELETE", path).status_code == owner.api.send("POST", f"{path}/resend").status_code == 404


def test_sending_again_makes_a_new_link_and_kills_the_old_one(owner, org, somebody, connection):
    guest = somebody()
    first = invite(owner, org, guest.user.email)
    connection.execute("update invitations set expires_at = now() where id = %s", [first["id"]])
    again = owner.api.ask("POST", f"{org}/invitations/{first['id']}/resend")
    assert again["token"] != first["token"]
    assert again["version"] == 2
    assert verdict(accept(guest, first["token"])) == (404, "invitation_not_found")
    assert accept(guest, again["token"]).ok
    assert verdict(owner.api.send("POST", f"{org}/invitations/{first['id']}/resend")) == (409, "invitation_used")
    assert verdict(owner.api.send("DELETE", f"{org}/invitations/{first['id']}")) == (409, "invitation_used")


def test_the_address_counts_as_it_stands_now_and_only_verified(owner, org, somebody, connection):
    guest = somebody()
    invitation = invite(owner, org, guest.user.email)
    connection.execute("update auth.users set email_confirmed_at = null where id = %s", [guest.id])
    assert verdict(accept(guest, invitation["token"])) == (403, "email_not_verified")
    connection.execute(
        "update auth.users set email_confirmed_at = now(), email = %s where id = %s",
        [f"moved-{guest.id}@example.com", guest.id],
    )
    assert verdict(accept(guest, invitation["token"])) == (403, "invitation_for_another_address"), "the token is older"
    connection.execute("update auth.users set email = %s where id = %s", [guest.user.email, guest.id])
    assert accept(guest, invitation["token"]).ok


def test_nobody_is_invited_twice_and_no_member_at_all(owner: Person, org: str, join, somebody):
    member, guest = join("viewer"), somebody()
    refused = owner.api.send("POST", f"{org}/invitations", json={"email": member.user.email, "role": "editor"})
    assert verdict(refused) == (409, "already_member")
    first = invite(owner, org, guest.user.email)
    refused = owner.api.send("POST", f"{org}/invitations", json={"email": guest.user.email.title(), "role": "viewer"})
    assert verdict(refused) == (409, "already_invited")
    assert f"{org}/invitations/{first['id']}/resend" in refused.json()["detail"]


def test_a_member_who_came_in_otherwise_is_told_so(owner, org, somebody, connection):
    guest = somebody()
    invitation = invite(owner, org, guest.user.email, "viewer")
    connection.execute(
        "insert into memberships (org_id, user_id, role) values (%s, %s, 'editor')", [org_id(org), guest.id]
    )
    assert verdict(accept(guest, invitation["token"])) == (409, "already_member")
    assert role_of(guest, org) == "editor"


def test_admins_invite_up_to_admin_and_lower_roles_nobody(owner: Person, org: str, join):
    def tried(by: Person, role: str) -> int:
        body = {"email": f"{uuid4()}@example.com", "role": role}
        return by.api.send("POST", f"{org}/invitations", json=body).status_code

    admin, editor = join("admin"), join("editor")
    assert [tried(owner, role) for role in ROLES] == [201, 201, 201, 201]
    assert [tried(admin, role) for role in ROLES] == [403, 201, 201, 201]
    assert [tried(editor, role) for role in ROLES] == [403, 403, 403, 403]
    (of_an_owner,) = (i for i in owner.api.ask("GET", f"{org}/invitations")["data"] if i["role"] == "owner")
    assert verdict(admin.api.send("DELETE", f"{org}/invitations/{of_an_owner['id']}")) == (403, "forbidden")
    assert verdict(editor.api.send("GET", f"{org}/invitations")) == (403, "forbidden")


def test_one_of_many_who_accept_at_once_wins(owner: Person, org: str, somebody, connection: psycopg.Connection):
    guest = somebody()
    token = invite(owner, org, guest.user.email)["token"]
    with ThreadPoolExecutor(8) as at_once:
        answers = list(at_once.map(lambda _: accept(guest, token), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert {answer.json()["code"] for answer in answers if not answer.ok} == {"invitation_used"}
    joined = "select count(*) from events where org_id = %s and type = 'membership.created'"
    assert value(connection, joined, [org_id(org)]) == 2, "the founder, and the guest once"


def test_an_invitation_does_not_outlive_who_stands_behind_it(owner: Person, org: str, join, somebody):
    admin, first, second = join("admin"), somebody(), somebody()
    of_the_admin, of_the_owner = invite(admin, org, first.user.email), invite(owner, org, second.user.email)
    owner.api.ask("PATCH", f"{org}/members/{admin.id}", json={"role": "editor"})
    assert verdict(accept(first, of_the_admin["token"])) == (410, "invitation_revoked")
    assert accept(second, of_the_owner["token"]).ok


def test_invitations_are_listed_page_by_page_and_members_too(owner: Person, org: str, join):
    expected = {invite(owner, org, f"{uuid4()}@example.com")["id"] for _ in range(5)}
    people = {owner.id, *(join("viewer").id for _ in range(4))}
    for path, key, all_of_them in (("invitations", "id", expected), ("members", "user_id", people)):
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = owner.api.ask("GET", f"{org}/{path}?limit=2{cursor and '&cursor=' + cursor}")
            seen += [row[key] for row in page["data"]]
            cursor = page["next_cursor"]
        assert len(seen) == 5
        assert set(seen) == all_of_them


def test_an_anonymous_user_invites_nobody_and_accepts_nothing(owner, org, own_supabase, people_api, connection):
    user_id = make_user(connection)
    connection.execute(
        "insert into memberships (org_id, user_id, role) values (%s, %s, 'owner')", [org_id(org), user_id]
    )
    anonymous = mint(own_supabase, sub=str(user_id), role="authenticated", is_anonymous=True)
    api, refused = people_api.as_user(anonymous), (403, "anonymous_users_create_nothing")
    body = {"email": "x@example.com", "role": "viewer"}
    assert verdict(api.send("POST", f"{org}/invitations", json=body)) == refused
    assert verdict(api.send("POST", "/v1/invitations/accept", json={"token": "x"})) == refused
    for function, arguments in (
        ("create_invitation", {"org_id": org_id(org), **body, "token_hash": "0" * 64}),
        ("accept_invitation", {"token": "x"}),
    ):
        answer = rpc(own_supabase, anonymous, function, arguments)
        assert (answer.status_code, answer.json()["message"]) == refused, function


# --- members ----------------------------------------------------------------------------------------------------------


def test_members_see_each_other_with_their_addresses_and_strangers_see_nobody(owner: Person, org: str, join, somebody):
    viewer, stranger = join("viewer"), somebody()
    seen = {m["user_id"]: (m["email"], m["role"]) for m in viewer.api.ask("GET", f"{org}/members")["data"]}
    assert seen == {owner.id: (owner.user.email, "owner"), viewer.id: (viewer.user.email, "viewer")}
    for path in (f"{org}/members", f"{org}/members/{owner.id}", f"{org}/invitations"):
        assert verdict(stranger.api.send("GET", path)) == (404, "not_found")


def test_a_role_changes_only_from_what_was_read(owner: Person, org: str, join):
    member = join("viewer")
    path = f"{org}/members/{member.id}"
    tag = owner.api.send("GET", path).headers["ETag"]
    changed = owner.api.send("PATCH", path, json={"role": "editor"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["role"], changed.json()["version"]) == (200, "editor", 2)
    stale = {"If-Match": tag}
    assert verdict(owner.api.send("PATCH", path, json={"role": "admin"}, headers=stale)) == (412, "precondition_failed")
    assert verdict(owner.api.send("DELETE", path, headers=stale)) == (412, "precondition_failed")
    assert owner.api.send("DELETE", path, headers={"If-Match": changed.headers["ETag"]}).status_code == 204
    assert role_of(member, org) is None


@pytest.fixture(scope="module")
def two_of_each(connection: psycopg.Connection) -> tuple[UUID, dict[str, tuple[UUID, UUID]]]:
    org = value(connection, "insert into organisations (name) values ('Two of each') returning id")
    people = {role: (make_user(connection), make_user(connection)) for role in ROLES}
    for role, both in people.items():
        for user_id in both:
            connection.execute(
                "insert into memberships (org_id, user_id, role) values (%s, %s, %s)", [org, user_id, role]
            )
    return org, people


@pytest.mark.parametrize("mine", ROLES)
@pytest.mark.parametrize("theirs", ROLES)
def test_the_database_decides_about_roles_as_the_rules_do(connection, two_of_each, mine: str, theirs: str):
    org, people = two_of_each
    me, them = people[mine][0], people[theirs][1]
    for role in ROLES:
        refused = refusal(connection, me, "select change_member_role(%s, %s, %s)", [org, them, role])
        assert refused == (None if may_change(Role(mine), Role(theirs), Role(role)) else "PT403"), role
    refused = refusal(connection, me, "select remove_member(%s, %s)", [org, them])
    assert refused == (None if may_remove(Role(mine), Role(theirs), is_me=False) else "PT403")


@pytest.mark.parametrize("role", ROLES)
def test_the_api_decides_about_roles_as_the_rules_do(owner: Person, org: str, join, role: str):
    me, them, other_owner = join(role), join("editor"), join("owner")
    expected = 200 if may_change(Role(role), Role.EDITOR, Role.VIEWER) else 403
    assert me.api.send("PATCH", f"{org}/members/{them.id}", json={"role": "viewer"}).status_code == expected
    expected = 200 if may_change(Role(role), Role.VIEWER, Role.OWNER) else 403
    assert me.api.send("PATCH", f"{org}/members/{them.id}", json={"role": "owner"}).status_code == expected
    expected = 204 if may_remove(Role(role), Role.OWNER, is_me=False) else 403
    assert me.api.send("DELETE", f"{org}/members/{other_owner.id}").status_code == expected
    assert me.api.send("DELETE", f"{org}/members/{me.id}").status_code == 204, "everybody may leave"
    assert me.api.send("POST", f"{org}/leave").status_code == 404, "and only once"


def test_the_last_owner_cannot_leave_be_demoted_or_be_removed(owner: Person, org: str, join):
    join("admin")
    path = f"{org}/members/{owner.id}"
    for answer in (
        owner.api.send("POST", f"{org}/leave"),
        owner.api.send("DELETE", path),
        owner.api.send("PATCH", path, json={"role": "admin"}),
    ):
        assert verdict(answer) == (409, "last_owner")
    join("owner")
    assert owner.api.send("POST", f"{org}/leave").status_code == 204


def test_of_two_owners_who_leave_at_the_same_moment_one_stays(own_supabase, connection, owner, org, join):
    other = join("owner")
    with (
        psycopg.connect(own_supabase.database_url) as first,
        psycopg.connect(own_supabase.database_url) as second,
        ThreadPoolExecutor(1) as meanwhile,
    ):

        def leave(who: psycopg.Connection, user_id: UUID) -> None:
            with acting_as(who, user_id):
                who.execute("select leave_organisation(%s)", [org_id(org)])

        with acting_as(first, owner.user.id):
            first.execute("select leave_organisation(%s)", [org_id(org)])
            leaving = meanwhile.submit(leave, second, other.user.id)
            waits = "select count(*) from pg_locks where pid = %s and not granted"
            eventually(lambda: value(connection, waits, [second.info.backend_pid]), "the second does not wait")
        with pytest.raises(psycopg.Error) as refused:
            leaving.result(20)
    assert refused.value.sqlstate == "PT409"
    assert (role_of(owner, org), role_of(other, org)) == (None, "owner")


def test_however_owners_leave_demote_and_remove_each_other_at_once_one_stays(owner, org, join, connection):
    for _ in range(5):
        people = [join("owner") for _ in range(3)]
        connection.execute(
            "delete from memberships where org_id = %s and user_id <> all (%s)",
            [org_id(org), [person.user.id for person in people]],
        )
        a, b, c = people
        moves: list[tuple[Person, str, str, Any]] = [
            (a, "POST", "leave", None),
            (b, "DELETE", f"members/{c.id}", None),
            (c, "PATCH", f"members/{b.id}", {"role": "viewer"}),
            (c, "POST", "transfer", {"user_id": a.id}),
            (b, "POST", "leave", None),
        ]
        with ThreadPoolExecutor(len(moves)) as at_once:
            started = [at_once.submit(who.api.send, how, f"{org}/{path}", json=body) for who, how, path, body in moves]
            answers = [move.result() for move in started]
        assert {answer.status_code for answer in answers} <= {200, 204, 403, 404, 409, 422}, [a.text for a in answers]
        owners = "select count(*) from memberships where org_id = %s and role = 'owner'"
        assert value(connection, owners, [org_id(org)]) >= 1


def test_ownership_is_handed_on_whole(owner: Person, org: str, join, somebody, connection):
    heir, stranger = join("viewer"), somebody()

    def transfer(by: Person, to: str) -> requests.Response:
        return by.api.send("POST", f"{org}/transfer", json={"user_id": to})

    assert verdict(transfer(heir, heir.id)) == (403, "forbidden")
    assert verdict(transfer(stranger, stranger.id)) == (404, "not_found")
    assert verdict(transfer(owner, stranger.id)) == (422, "member_not_found")
    assert verdict(transfer(owner, owner.id)) == (409, "already_owner")
    handed = transfer(owner, heir.id)
    assert (handed.status_code, handed.json()["my_role"]) == (200, "admin")
    assert (role_of(owner, org), role_of(heir, org)) == ("admin", "owner")
    assert verdict(transfer(owner, owner.id)) == (403, "forbidden")


def test_when_the_last_owners_account_is_deleted_the_oldest_admin_owns(owner: Person, org: str, join, connection):
    join("editor")
    first_admin, second_admin = join("admin"), join("admin")
    connection.execute("delete from auth.users where id = %s", [owner.user.id])
    assert (role_of(first_admin, org), role_of(second_admin, org)) == ("owner", "admin")


def test_without_an_admin_an_organisation_waits_and_nobody_is_raised(owner: Person, org: str, join, connection):
    editor = join("editor")
    connection.execute("delete from auth.users where id = %s", [owner.user.id])
    assert role_of(editor, org) == "editor"
    assert editor.api.ask("GET", org)["name"] == "Acme"


def test_an_organisation_with_admins_is_deleted_whole(owner: Person, org: str, join, connection):
    join("admin")
    invite(owner, org, f"{uuid4()}@example.com")
    assert owner.api.send("DELETE", org).status_code == 204
    for table in ("memberships", "invitations"):
        assert value(connection, f"select count(*) from {table} where org_id = %s", [org_id(org)]) == 0


# --- the second factor ------------------------------------------------------------------------------------------------


def test_a_second_factor_is_demanded_by_owners_who_show_one(owner, org, join, own_supabase, people_api):
    admin = join("admin")
    strong = people_api.as_user(mint(own_supabase, sub=owner.id, role="authenticated", aal="aal2"))
    strong_admin = people_api.as_user(mint(own_supabase, sub=admin.id, role="authenticated", aal="aal2"))
    demand = {"require_aal2": True}
    assert verdict(owner.api.send("PATCH", org, json=demand)) == (403, "aal2_required")
    assert verdict(strong_admin.send("PATCH", org, json=demand)) == (403, "forbidden")
    assert strong.ask("PATCH", org, json=demand)["require_aal2"] is True
    assert owner.api.ask("PATCH", org, json={"name": "Renamed"})["require_aal2"] is True, "that takes no second factor"
    assert verdict(owner.api.send("PATCH", org, json={"require_aal2": False})) == (403, "aal2_required")
    tag = owner.api.send("GET", org).headers["ETag"]
    assert strong.ask("PATCH", org, json={"require_aal2": False})["require_aal2"] is False
    stale = owner.api.send("PATCH", org, json={"name": "x"}, headers={"If-Match": tag})
    assert verdict(stale) == (412, "precondition_failed")


def test_where_it_is_demanded_owners_do_nothing_of_theirs_without_it(
    owner, org, join, own_supabase, people_api, connection
):
    other, admin, viewer = join("owner"), join("admin"), join("viewer")
    connection.execute("update organisations set require_aal2 = true where id = %s", [org_id(org)])
    weak, strong = owner.api, people_api.as_user(mint(own_supabase, sub=owner.id, role="authenticated", aal="aal2"))
    owners_business: list[tuple[str, str, Any]] = [
        ("PATCH", f"{org}/members/{viewer.id}", {"role": "owner"}),
        ("PATCH", f"{org}/members/{other.id}", {"role": "viewer"}),
        ("POST", f"{org}/invitations", {"email": f"{uuid4()}@example.com", "role": "owner"}),
        ("DELETE", f"{org}/members/{other.id}", None),
        ("POST", f"{org}/leave", None),
        ("POST", f"{org}/transfer", {"user_id": admin.id}),
        ("DELETE", org, None),
    ]
    for method, path, body in owners_business:
        assert verdict(weak.send(method, path, json=body)) == (403, "aal2_required"), path
    assert weak.send("PATCH", f"{org}/members/{viewer.id}", json={"role": "editor"}).ok, "no owner's business"
    assert strong.send("PATCH", f"{org}/members/{viewer.id}", json={"role": "owner"}).ok


def test_the_database_demands_it_too(owner, org, join, own_supabase, connection):
    other = join("owner")
    connection.execute("update organisations set require_aal2 = true where id = %s", [org_id(org)])
    ids = {"org_id": org_id(org), "user_id": str(other.user.id)}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("change_member_role", {**ids, "role": "viewer"}),
        ("remove_member", ids),
        ("leave_organisation", {"org_id": org_id(org)}),
        ("update_organisation", {"org_id": org_id(org), "changes": {"require_aal2": False}}),
        ("transfer_organisation", {**ids, "user_id": str(join("admin").user.id)}),
        ("delete_organisation", {"org_id": org_id(org)}),
    ]
    for function, arguments in calls:
        refused = rpc(own_supabase, owner.user.access_token, function, arguments)
        assert (refused.status_code, refused.json()["message"]) == (403, "aal2_required"), function
    strong = mint(own_supabase, sub=owner.id, role="authenticated", aal="aal2")
    for function, arguments in calls:
        if function != "leave_organisation":  # the last owner by then
            answer = rpc(own_supabase, strong, function, arguments)
            if function == "transfer_organisation":
                with connection.transaction():
                    connection.execute(
                        "update memberships set role = 'owner' where org_id = %s and user_id = %s",
                        [org_id(org), owner.id],
                    )
            assert answer.ok, (function, answer.text)


def test_postgrest_asked_directly_refuses_who_has_no_say(owner, org, join, somebody, own_supabase):
    admin, viewer, stranger = join("admin"), join("viewer"), somebody()
    ids = {"org_id": org_id(org), "user_id": owner.id}
    calls = [
        ("change_member_role", {**ids, "role": "viewer"}),
        ("remove_member", ids),
        ("create_invitation", {"org_id": org_id(org), "email": "x@y.zz", "role": "owner", "token_hash": "0" * 64}),
        ("update_organisation", {"org_id": org_id(org), "changes": {"require_aal2": True}}),
        ("transfer_organisation", {**ids, "user_id": viewer.id}),
        ("delete_organisation", {"org_id": org_id(org)}),
    ]
    for function, arguments in calls:
        for who, status in ((admin, 403), (viewer, 403), (stranger, 404)):
            answer = rpc(own_supabase, who.user.access_token, function, arguments)
            assert answer.status_code == status, (function, answer.text)
    for function in ("list_members", "list_invitations"):
        arguments = {"org_id": org_id(org), "before_at": None, "before_id": None, "max_rows": 10}
        assert rpc(own_supabase, stranger.user.access_token, function, arguments).status_code == 404
    assert role_of(owner, org) == "owner"


def rpc(supabase: EmbeddedSupabase, token: str, function: str, arguments: dict[str, Any]) -> requests.Response:
    """Call a function of the database past the API, as a client of Supabase can."""
    return requests.post(
        f"{supabase.url}/rest/v1/rpc/{function}",
        headers={"apikey": supabase.publishable_key, "Authorization": f"Bearer {token}"},
        json=arguments,
        timeout=30,
    )
