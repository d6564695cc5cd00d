"""What reports are made of, in the database."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from server.data.clients import Database
from server.data.failures import read_answer
from server.data.queries import call
from server.errors import AppError
from server.features.uptime.rules import History, read_history


class Watched(NamedTuple):
    """A monitor, its ledger within the window, and how many incidents went on in it."""

    monitor_id: str
    name: str
    kind: str
    history: History
    incident_count: int


class Found(NamedTuple):
    """An organisation's monitors, by name."""

    org_id: str
    monitors: list[Watched]


def read_sla(database: Database, org_id: UUID | None, from_at: datetime, to_at: datetime, max_monitors: int) -> Found:
    """Return up to `max_monitors`, in one call. Raises NotFound; InvalidInput where the organisation is not clear."""
    arguments = {
        "org_id": str(org_id) if org_id else None,
        "from_at": from_at.isoformat(),
        "to_at": to_at.isoformat(),
        "max_monitors": max_monitors,
    }
    answer = read_answer(database.execute(call("sla_report", arguments)))
    try:
        return Found(answer["org_id"], [_watched(row) for row in answer["monitors"]])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: SlaReport {type(error).__name__} {error}") from None


def _watched(row: Mapping[str, Any]) -> Watched:
    history = read_history(row["history"])
    return Watched(row["monitor_id"], row["name"], row["kind"], history, int(row["incident_count"]))
