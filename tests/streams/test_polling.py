"""The one poll of a process: it goes on from where it stood, whatever the database does meanwhile."""

import asyncio
import contextlib

from server.errors import Gone, Unavailable
from server.features.events.rules import Position
from server.streams.hub import Ending, FeedPage, Hub
from server.streams.polling import feed
from tests.streams.fakes import START, feed_page, joined, row, taken


class Script:
    """Answers polls in turn, and remembers from where they asked; then it hangs."""

    def __init__(self, *answers: FeedPage | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Position | None] = []
        self.ended = asyncio.Event()

    async def __call__(self, after: Position | None) -> FeedPage:
        self.asked.append(after)
        if not self.answers:
            self.ended.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def play(hub: Hub, script: Script) -> None:
    feeding = asyncio.create_task(feed(hub, script, lambda: 0.5, pause_seconds=0.001))
    async with asyncio.timeout(10):
        await script.ended.wait()
    feeding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await feeding


def test_the_feed_goes_on_from_each_page():
    async def story() -> None:
        hub = Hub(10)
        hub.start_at(START)
        reader = joined(hub)
        script = Script(feed_page(row(1)), feed_page(row(2)))
        await play(hub, script)
        assert script.asked == [START, Position(101, 1), Position(102, 2)]
        assert taken(reader) == [1, 2]

    asyncio.run(story())


def test_a_database_that_is_away_ends_no_stream_and_nothing_is_missed():
    async def story() -> None:
        hub = Hub(10)
        hub.start_at(START)
        reader = joined(hub)
        away = [Unavailable(), OSError("a bug"), Unavailable()]
        script = Script(*away, feed_page(row(1)))
        await play(hub, script)
        assert script.asked == [START, START, START, START, Position(101, 1)]
        assert reader.ending is None
        assert taken(reader) == [1]

    asyncio.run(story())


def test_a_feed_that_cannot_go_on_begins_anew_and_every_reader_resumes():
    async def story() -> None:
        hub = Hub(10)
        hub.start_at(START)
        reader = joined(hub)
        await play(hub, Script(Gone(), feed_page(reached=900)))
        assert reader.ending is Ending.RESTART
        assert hub.position == Position(900, 0)

    asyncio.run(story())


def test_the_feed_begins_at_the_present_and_where_nobody_listens_the_database_is_left_alone_until_somebody_comes():
    async def story() -> None:
        hub = Hub(10)
        script = Script(feed_page())
        feeding = asyncio.create_task(feed(hub, script, lambda: 0.5, pause_seconds=0.001))
        await asyncio.sleep(0.1)
        assert script.asked == [None]
        joined(hub)
        async with asyncio.timeout(5):
            await script.ended.wait()
        assert script.asked == [None, START]
        feeding.cancel()

    asyncio.run(story())
