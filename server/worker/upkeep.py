"""What keeps the database as it should be: chores, done again and again by whichever worker comes first.

No chore holds the database up: each is a step that takes no long, repeated until it says that it is done. One that
fails is tried again at its next turn, and costs no other one its own.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, RootModel

from server.data.privileged import Privileged
from server.errors import AppError
from server.recurrence import DAYS_AHEAD, InvalidSchedule, Schedule, Written, write_out
from server.worker.checking import InThread, wait_for
from server.worker.store import read_answer, spell

log = logging.getLogger("tocsin.worker")

HOUR_SECONDS = 3600
ROLL_UP_SECONDS = 300  # an hour is seen in the rollups so soon after its end
PARTITION_DAYS_AHEAD = 7
EVENT_RETENTION_DAYS = 90  # a phone that was away longer starts anew
ROWS_ROLLED_UP_AT_ONCE = 50_000
ROWS_DELETED_AT_ONCE = 20_000  # a few hundred milliseconds of deleting
ROWS_PRUNED_AT_ONCE = 10_000
ANSWERS_FORGOTTEN_AT_ONCE = 1_000
# So that each maintenance window is written out further about once a month.
DAYS_WRITTEN = DAYS_AHEAD - 30
WINDOWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every so often. `step` is a blocking call that does a piece and tells whether that was all."""

    what: str
    every_seconds: float
    step: Callable[[], bool]


class Upkeep:
    """Does its chores, each in its own rhythm, until it is told to stop."""

    def __init__(self, chores: Sequence[Chore], in_thread: InThread) -> None:
        self._chores = chores
        self._in_thread = in_thread

    async def keep(self, stopping: asyncio.Event) -> None:
        """Do all chores at once and then each at its time, until `stopping`."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._repeat(chore, stopping))

    async def _repeat(self, chore: Chore, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                while not await self._in_thread(chore.step) and not stopping.is_set():
                    pass
            except AppError as error:
                log.warning("cannot %s", chore.what, extra={"reason": error.reason})
            except Exception:
                # A mistake of ours in a chore must not end the checks beside it.
                log.exception("cannot %s", chore.what)
            await wait_for(stopping, chore.every_seconds)


class Chores:
    """The chores there are, as calls of the database. Each raises an AppError where it does not take them."""

    def __init__(self, privileged: Privileged) -> None:
        self._privileged = privileged

    def all(self) -> list[Chore]:
        """Return them; what makes room for new rows comes first."""
        return [
            Chore("make and drop days of check results", HOUR_SECONDS, self.make_days),
            Chore("make and drop days of pings", HOUR_SECONDS, self.make_days_of_pings),
            Chore("roll up check results", ROLL_UP_SECONDS, self.roll_up),
            Chore("apply each plan's retention", HOUR_SECONDS, self.apply_retention),
            Chore("prune hourly rollups", HOUR_SECONDS, self.prune_hours),
            Chore("prune events", HOUR_SECONDS, self.prune_events),
            Chore("forget answers of idempotency keys", HOUR_SECONDS, self.forget_answers),
            Chore("write out maintenance windows", HOUR_SECONDS, self.extend_windows),
        ]

    def make_days(self) -> bool:
        """Make the partitions of the days to come, and drop those that no plan keeps any longer."""
        self._privileged.maintain_check_results(PARTITION_DAYS_AHEAD)
        return True

    def make_days_of_pings(self) -> bool:
        """Do the same for pings, and delete some of those past their plan's retention."""
        return read_answer(_Done, self._privileged.maintain_pings(PARTITION_DAYS_AHEAD, ROWS_DELETED_AT_ONCE)).done

    def roll_up(self) -> bool:
        """Roll up some of the results whose hour has ended."""
        return read_answer(_Done, self._privileged.roll_up(ROWS_ROLLED_UP_AT_ONCE)).done

    def apply_retention(self) -> bool:
        """Delete some of the results that have passed their own plan's retention."""
        return read_answer(_Done, self._privileged.apply_retention(ROWS_DELETED_AT_ONCE)).done

    def prune_hours(self) -> bool:
        """Delete some of the hourly rollups past their retention."""
        return read_answer(_Count, self._privileged.prune_hours(ROWS_PRUNED_AT_ONCE)).root < ROWS_PRUNED_AT_ONCE

    def prune_events(self) -> bool:
        """Drop some of the events past their retention."""
        pruned = self._privileged.prune_events(EVENT_RETENTION_DAYS, ROWS_PRUNED_AT_ONCE)
        return read_answer(_Count, pruned).root < ROWS_PRUNED_AT_ONCE

    def forget_answers(self) -> bool:
        """Forget some of what was kept for idempotency keys of more than a day ago."""
        forgotten = self._privileged.forget_answers(ANSWERS_FORGOTTEN_AT_ONCE)
        return read_answer(_Count, forgotten).root < ANSWERS_FORGOTTEN_AT_ONCE

    def extend_windows(self) -> bool:
        """Write out some recurring maintenance windows whose occurrences do not reach far enough ahead any more."""
        answer = self._privileged.windows_to_extend(DAYS_WRITTEN, WINDOWS_AT_ONCE)
        windows = read_answer(_Windows, answer).root
        for window in windows:
            self._extend(window)
        return len(windows) < WINDOWS_AT_ONCE

    def _extend(self, window: "_Window") -> None:
        try:
            written = write_out(window.schedule, window.now, after=window.written_until)
        except InvalidSchedule as wrong:  # the time zone is none any more, or its clock has made the window too long
            log.error("a maintenance window cannot go on", extra={"window_id": str(window.id), "reason": wrong.detail})  # noqa: TRY400
            written = Written([], None)
        self._privileged.extend_window(str(window.id), window.version, written.documents(), spell(written.until))


class _Done(BaseModel):
    done: bool


class _Count(RootModel[int]):
    pass


class _Window(BaseModel):
    """A recurring window; `now` is the database's time."""

    id: UUID
    version: int
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    time_zone: str
    recurrence: str
    written_until: AwareDatetime
    now: AwareDatetime

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.starts_at, self.ends_at, self.time_zone, self.recurrence)


class _Windows(RootModel[list[_Window]]):
    pass
