"""Who has a say over whom, in tables; what a second factor opens; where an invitation's token stands."""

import hashlib

import pytest

from server.features.invitations.rules import link_in_mail, link_to_pass_on, token_hash
from server.features.members.rules import makes_or_unmakes_an_owner, may_change, may_remove
from server.features.orgs.rules import Role, is_assured, may_own

VIEWER, EDITOR, ADMIN, OWNER = Role

# Who removes whom. Leaving is not in it: everybody may.
REMOVES = {
    VIEWER: set(),
    EDITOR: set(),
    ADMIN: {VIEWER, EDITOR, ADMIN},
    OWNER: {VIEWER, EDITOR, ADMIN, OWNER},
}


@pytest.mark.parametrize("mine", Role)
@pytest.mark.parametrize("theirs", Role)
def test_admins_remove_up_to_admin_and_owners_everybody(mine: Role, theirs: Role):
    assert may_remove(mine, theirs, is_me=False) == (theirs in REMOVES[mine])


@pytest.mark.parametrize("mine", Role)
def test_everybody_may_leave(mine: Role):
    assert may_remove(mine, mine, is_me=True)


@pytest.mark.parametrize(
    ("mine", "theirs", "role", "may"),
    [
        (VIEWER, VIEWER, EDITOR, False),
        (EDITOR, VIEWER, EDITOR, False),
        (EDITOR, EDITOR, ADMIN, False),
        (ADMIN, VIEWER, EDITOR, True),
        (ADMIN, EDITOR, ADMIN, True),
        (ADMIN, ADMIN, VIEWER, True),
        (ADMIN, ADMIN, OWNER, False),
        (ADMIN, OWNER, ADMIN, False),
        (ADMIN, OWNER, OWNER, False),
        (OWNER, VIEWER, OWNER, True),
        (OWNER, OWNER, VIEWER, True),
        (OWNER, ADMIN, EDITOR, True),
    ],
    ids=str,
)
def test_admins_change_roles_up_to_admin_and_owners_every_role(mine: Role, theirs: Role, role: Role, may: bool):
    assert may_change(mine, theirs, role) == may


def test_nobody_makes_anybody_what_they_are_not_themselves():
    given = {(mine, role) for mine in Role for theirs in Role for role in Role if may_change(mine, theirs, role)}
    assert all(list(Role).index(role) <= list(Role).index(mine) for mine, role in given)


def test_only_a_change_from_or_to_owner_is_an_owners_business():
    assert {(a, b) for a in Role for b in Role if not makes_or_unmakes_an_owner(a, b)} == {
        (a, b) for a in (VIEWER, EDITOR, ADMIN) for b in (VIEWER, EDITOR, ADMIN)
    }


@pytest.mark.parametrize(
    ("aal", "demanded", "enough"),
    [("aal1", False, True), ("aal1", True, False), ("aal2", True, True), ("aal3", True, True), ("aal2", False, True)],
)
def test_a_second_factor_counts_where_it_is_demanded(aal: str, demanded: bool, enough: bool):
    assert is_assured(aal, require_aal2=demanded) == enough


def test_owners_alone_say_whether_a_second_factor_is_demanded():
    assert [role for role in Role if may_own(role)] == [OWNER]


def test_a_link_to_pass_on_keeps_its_token_out_of_what_a_browser_sends():
    link = link_to_pass_on("https://app.example.com/join", "secret")
    assert link.partition("#") == ("https://app.example.com/join", "#", "token=secret")


def test_a_link_in_a_mail_leaves_the_fragment_to_auth():
    assert link_in_mail("https://app.example.com/join", "secret") == "https://app.example.com/join?token=secret"


def test_what_is_stored_of_a_token_is_its_sha256():
    assert token_hash("secret") == hashlib.sha256(b"secret").hexdigest()
