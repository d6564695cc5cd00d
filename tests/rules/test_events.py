"""Where readers stand in the log, and what they may see of it."""

import itertools

import pytest

from server.features.events.rules import (
    Change,
    Position,
    Rights,
    Snapshot,
    after_change,
    decode_position,
    may_see,
    read_snapshot,
)
from server.features.orgs.rules import Role

ME, SOMEBODY, ACME, OTHER = "me", "somebody", "acme", "other"
LONG_AGO = Snapshot(1, 1, frozenset())


def rights(role: Role | None = None, as_of: Snapshot = LONG_AGO) -> Rights:
    return Rights(ME, {ACME: role} if role else {}, as_of)


def change(seq: int, role: Role | None, *, xid: int = 100) -> Change:
    return Change(Position(xid, seq), ACME, ME, role)


@pytest.mark.parametrize("position", [Position(0, 0), Position(1, 2), Position(2**63 - 1, 2**63 - 1)])
def test_a_position_is_text_for_a_url_and_comes_back_as_it_was(position):
    text = position.encode()
    assert text.isascii()
    assert not set(text) & set("+/=&?# \r\n")
    assert decode_position(text) == position


GOOD = Position(700, 7).encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        GOOD[:-1],
        GOOD + "A",
        GOOD + "=",
        " " + GOOD,
        GOOD + "\n",
        GOOD[:-1] + "B",  # bits that no encoder sets
        "B" + GOOD[1:],  # another version
        GOOD.replace("A", "+", 1),
        "é" * 23,
        Position(2**64 - 1, 0).encode(),
    ],
)
def test_what_is_no_position_of_ours_is_refused(text):
    with pytest.raises(ValueError, match="position of ours"):
        decode_position(text)


def test_positions_are_ordered_by_transaction_before_sequence():
    assert Position(1, 900) < Position(2, 1) < Position(2, 2)


def test_a_snapshot_sees_what_was_committed_when_it_was_taken():
    snapshot = read_snapshot("10:15:10,12")
    assert [xid for xid in range(8, 18) if snapshot.sees(xid)] == [8, 9, 11, 13, 14]
    assert not read_snapshot("7:7:").sees(7)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("kind", ["monitor", "incident", "membership", "organisation"])
def test_every_member_sees_what_happens_in_the_organisation(role, kind):
    assert may_see(rights(role), ACME, kind, SOMEBODY)
    assert not may_see(rights(role), OTHER, kind, SOMEBODY)


@pytest.mark.parametrize("kind", ["api_key", "invitation"])
def test_keys_and_invitations_are_for_admins(kind):
    seen_by = {role for role in Role if may_see(rights(role), ACME, kind, SOMEBODY)}
    assert seen_by == {Role.ADMIN, Role.OWNER}


def test_a_stranger_sees_what_becomes_of_their_own_membership_alone():
    assert may_see(rights(), ACME, "membership", ME)
    assert not may_see(rights(), ACME, "membership", SOMEBODY)
    assert not may_see(rights(), ACME, "monitor", ME)


def test_who_is_removed_sees_nothing_more_and_who_comes_back_does():
    removed = after_change(rights(Role.EDITOR), change(1, None))
    assert not may_see(removed, ACME, "monitor", SOMEBODY)
    assert may_see(after_change(removed, change(2, Role.VIEWER)), ACME, "monitor", SOMEBODY)


def test_what_the_snapshot_has_seen_changes_nothing():
    removed_since = rights(None, read_snapshot("10:15:12"))
    assert after_change(removed_since, change(5, Role.OWNER, xid=9)) is removed_since
    assert after_change(removed_since, change(5, Role.OWNER, xid=13)) is removed_since
    assert ACME in after_change(removed_since, change(5, Role.OWNER, xid=12)).roles


def test_changes_may_come_again_and_in_any_order():
    """The later change was made by the older transaction, which had waited for the other: the sequence tells."""
    changes = [change(1, Role.ADMIN, xid=120), change(2, None, xid=110), change(2, None, xid=110)]
    for order in itertools.permutations(changes):
        present = rights(Role.VIEWER)
        for each in order:
            present = after_change(present, each)
        assert ACME not in present.roles, order
