"""A monitor's ledger in the database."""

from datetime import datetime
from uuid import UUID

from server.data.clients import Database
from server.data.failures import read_answer
from server.data.queries import call
from server.errors import AppError
from server.features.uptime import rules
from server.features.uptime.rules import History


def read_history(database: Database, monitor_id: UUID, from_at: datetime, to_at: datetime) -> History | None:
    """Return the ledger within a window, in one call; None where the caller sees no such monitor."""
    arguments = {"monitor_id": str(monitor_id), "from_at": from_at.isoformat(), "to_at": to_at.isoformat()}
    answer = read_answer(database.execute(call("monitor_history", arguments)))
    if answer is None:
        return None
    try:
        return rules.read_history(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: History {type(error).__name__} {error}") from None
