"""The hub: each reader hears what they may see, once and in order, whenever they join and whatever changes."""

import asyncio

import pytest

from server.errors import RateLimited, Unavailable
from server.features.events.rules import Position
from server.features.orgs.rules import Role
from server.streams.hub import MAX_STREAMS_PER_PRINCIPAL, QUEUE_EVENTS, RING_EVENTS, Ending, Hub, Reader
from tests.streams.fakes import ANA, BEN, OTHER, START, change, feed_page, joined, rights, row, started_hub, taken


def test_a_reader_hears_what_happens_in_their_organisations_and_nothing_else():
    hub = started_hub()
    ana, ben = joined(hub, ANA), joined(hub, BEN, None)
    hub.take(feed_page(row(1), row(2, org=OTHER), row(3)))
    assert (taken(ana), taken(ben)) == ([1, 3], [])


def test_who_joins_late_gets_what_is_in_the_ring_after_their_position():
    hub = started_hub()
    hub.take(feed_page(*(row(seq) for seq in range(1, 6))))
    reader = joined(hub, at=Position(103, 3))
    hub.take(feed_page(row(6)))
    assert taken(reader) == [4, 5, 6]


def test_who_has_come_further_than_the_feed_hears_nothing_twice():
    """They come from another process, which was quicker."""
    hub = started_hub()
    reader = joined(hub, at=Position(102, 2))
    hub.take(feed_page(row(1), row(2), row(3)))
    assert taken(reader) == [3]


def test_the_ring_covers_only_what_it_still_holds():
    hub = started_hub()
    hub.take(feed_page(*(row(seq) for seq in range(1, RING_EVENTS + 3))))
    assert not hub.covers(Position(101, 1))
    reader = joined(hub, at=Position(102, 2))
    assert taken(reader) == list(range(3, RING_EVENTS + 3))


def test_nobody_is_offered_anything_before_they_have_caught_up():
    hub = started_hub()
    reader = Reader(ANA, None)
    hub.admit(reader)
    reader.adopt(rights())
    hub.take(feed_page(row(1), row(2, kind="membership"), changes=[change(2, Role.EDITOR)]))
    assert taken(reader) == []
    reader.reached = Position(101, 1)
    assert hub.join(reader)
    assert taken(reader) == [2]


def test_a_filter_leaves_out_the_other_organisations():
    hub = started_hub()
    reader = Reader(ANA, OTHER)
    hub.admit(reader)
    reader.adopt(rights())
    hub.join(reader)
    hub.take(feed_page(row(1), row(2, kind="membership", subject=ANA)))
    assert taken(reader) == []


def test_keys_and_invitations_are_told_to_admins_alone():
    hub = started_hub()
    readers = {role: joined(hub, ANA, role) for role in Role}
    hub.take(feed_page(row(1, kind="api_key"), row(2, kind="invitation"), row(3)))
    heard = {role: taken(reader) for role, reader in readers.items()}
    assert heard == {Role.VIEWER: [3], Role.EDITOR: [3], Role.ADMIN: [1, 2, 3], Role.OWNER: [1, 2, 3]}


def test_who_is_removed_hears_of_that_and_of_nothing_else_in_the_same_page():
    """What a slower transaction wrote stands before the removal in the feed, and was yet committed after it."""
    hub = started_hub()
    ana, ben = joined(hub, ANA), joined(hub, BEN)
    removal = row(2, kind="membership", subject=ANA) | {"after": None}
    hub.take(feed_page(row(1), removal, row(3), changes=[change(2, None)]))
    assert (taken(ana), taken(ben)) == ([2], [1, 2, 3])


def test_a_removal_counts_before_its_place_in_the_feed_has_come():
    hub = started_hub()
    reader = joined(hub)
    hub.take(feed_page(changes=[change(9, None)], reached=101))
    hub.take(feed_page(row(5), changes=[change(9, None)]))
    assert taken(reader) == []


def test_what_was_queued_before_a_removal_is_not_sent_after_it():
    hub = started_hub()
    reader = joined(hub)
    hub.take(feed_page(row(1)))
    hub.take(feed_page(changes=[change(2, None)], reached=103))
    assert taken(reader) == []


def test_who_becomes_a_member_hears_from_then_on():
    hub = started_hub()
    reader = joined(hub, role=None)
    hub.take(feed_page(row(1)))
    hub.take(feed_page(row(2, kind="membership", subject=ANA), row(3), changes=[change(2, Role.EDITOR)]))
    assert taken(reader) == [2, 3]


def test_a_change_between_the_door_and_the_reading_of_rights_is_not_lost():
    hub = started_hub()
    reader = Reader(ANA, None)
    hub.admit(reader)
    hub.take(feed_page(row(2, kind="membership", subject=ANA), changes=[change(2, None)]))
    reader.adopt(rights())
    reader.reached = Position(102, 2)
    hub.join(reader)
    hub.take(feed_page(row(3)))
    assert taken(reader) == []


def test_an_organisation_is_told_to_each_with_what_they_are_in_it():
    hub = started_hub()
    viewer, owner = joined(hub, ANA, Role.VIEWER), joined(hub, BEN, Role.OWNER)
    hub.take(feed_page(row(1, kind="organisation")))
    assert [b'"my_role":"viewer"' in json for _, json in viewer.take()] == [True]
    assert [b'"my_role":"owner"' in json for _, json in owner.take()] == [True]


def test_who_reads_too_slowly_is_ended_and_nobody_else():
    hub = started_hub()
    slow, quick = joined(hub, ANA), joined(hub, BEN)
    for seq in range(1, QUEUE_EVENTS + 2):
        hub.take(feed_page(row(seq)))
        taken(quick)
    assert (slow.ending, quick.ending) == (Ending.OVERFLOW, None)
    assert taken(slow) == [], "they resume from what they got"


def test_places_are_limited_for_each_and_for_all():
    hub = started_hub(max_readers=MAX_STREAMS_PER_PRINCIPAL + 1)
    mine = [joined(hub, ANA) for _ in range(MAX_STREAMS_PER_PRINCIPAL)]
    with pytest.raises(RateLimited) as too_many:
        hub.admit(Reader(ANA, None))
    assert too_many.value.code == "too_many_streams"
    joined(hub, BEN)
    with pytest.raises(Unavailable):
        hub.admit(Reader(BEN, None))
    hub.leave(mine[0])
    hub.admit(Reader(ANA, None))


def test_nobody_is_let_in_before_the_feed_has_begun():
    with pytest.raises(Unavailable):
        Hub(10).admit(Reader(ANA, None))


def test_who_has_left_leaves_nothing_behind():
    hub = started_hub()
    readers = [joined(hub, ANA), joined(hub, BEN, Role.OWNER)]
    hub.take(feed_page(row(1), changes=[change(1, Role.ADMIN), change(2, None, user=BEN)], reached=103))
    for reader in readers:
        hub.leave(reader)
    assert not hub.readers
    assert not hub._by_org
    assert not hub._by_user
    assert not hub._ahead
    assert not hub.wanted.is_set()


def test_a_feed_that_is_lost_sends_everybody_away_to_resume():
    hub = started_hub()
    reader = joined(hub)
    hub.lose()
    assert reader.ending is Ending.RESTART
    hub.start_at(Position(900, 0))
    assert not hub.covers(START)


def test_waiting_ends_when_there_is_something_to_do_or_time_is_up():
    async def story() -> None:
        hub = started_hub()
        reader = joined(hub)
        assert not await reader.wait(0.01)
        waiting = asyncio.create_task(reader.wait(60))
        await asyncio.sleep(0)
        hub.take(feed_page(row(1)))
        assert await waiting
        assert taken(reader) == [1]
        waiting = asyncio.create_task(reader.wait(60))
        await asyncio.sleep(0)
        reader.end(Ending.LEFT)
        assert await waiting

    asyncio.run(story())
