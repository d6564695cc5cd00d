"""A monitor's response times in the database."""

from datetime import datetime
from uuid import UUID

from server.data.clients import Database
from server.data.failures import read_answer
from server.data.queries import call
from server.errors import AppError
from server.features.series.rules import Lengths, Series, lay_out


def read_series(
    database: Database, monitor_id: UUID, region: str | None, from_at: datetime, to_at: datetime, lengths: Lengths
) -> Series | None:
    """Return the response times of a window, in one call; None where the caller sees no such monitor."""
    arguments = {
        "monitor_id": str(monitor_id),
        "in_region": region,
        "from_at": from_at.isoformat(),
        "to_at": to_at.isoformat(),
        "raw_seconds": lengths.raw,
        "hour_seconds": lengths.hours,
        "day_seconds": lengths.days,
    }
    answer = read_answer(database.execute(call("read_series", arguments)))
    if answer is None:
        return None
    try:
        return lay_out(answer, from_at, to_at, lengths)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: Series {type(error).__name__} {error}") from None
