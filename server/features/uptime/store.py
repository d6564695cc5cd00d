"""A monitor's ledger in the database."""

from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from server.data.clients import Database
from server.data.failures import read_answer
from server.data.queries import call
from server.features.monitors.rules import State
from server.features.uptime.rules import History, OpenLine


class _Line(BaseModel):
    state: State
    cause: str
    started_at: AwareDatetime


class _Row(BaseModel):
    now: AwareDatetime
    first_started_at: AwareDatetime | None
    last_observed_at: AwareDatetime | None
    last_interval_seconds: int | None
    ended_ms: dict[str, int]
    open: _Line | None


def read_history(database: Database, monitor_id: UUID, from_at: datetime, to_at: datetime) -> History | None:
    """Return the ledger within a window, in one call; None where the caller sees no such monitor."""
    arguments = {"monitor_id": str(monitor_id), "from_at": from_at.isoformat(), "to_at": to_at.isoformat()}
    answer = read_answer(database.execute(call("monitor_history", arguments)))
    if answer is None:
        return None
    row = _Row.model_validate(answer)
    line = OpenLine(row.open.state, row.open.cause == "paused", row.open.started_at) if row.open else None
    return History(
        row.now,
        row.first_started_at,
        row.last_observed_at,
        row.last_interval_seconds,
        row.ended_ms,
        line,
    )
