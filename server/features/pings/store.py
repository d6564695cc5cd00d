"""Pings and heartbeats in the database."""

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import AwareDatetime

from server.data.clients import Database
from server.data.failures import read_answer
from server.data.queries import call, table
from server.errors import AppError
from server.http.pagination import PageQuery, before_arguments
from server.http.replies import read_row
from server.probes.heartbeat_standing import Heartbeat

# Made once: of a ping only the arguments are its own.
_PING: Final = call("ping", {})


class HeartbeatAsRead(Heartbeat, frozen=True):
    """A heartbeat as it is read, beside the database's time."""

    now: AwareDatetime


def ping(database: Database, arguments: dict[str, Any]) -> int:
    """Send a ping, with the arguments of the database's function; return the protocol's status. Raises Forbidden."""
    status = read_answer(database.execute(replace(_PING, content=orjson.dumps(arguments))))
    if not isinstance(status, int):
        raise AppError(reason=f"upstream_shape: no status but {type(status).__name__}")
    return status


def read_heartbeat(database: Database, monitor_id: UUID) -> HeartbeatAsRead | None:
    """Return where a heartbeat stands; None where the caller sees no such heartbeat."""
    found = database.execute(call("read_heartbeat", {"monitor_id": str(monitor_id)}))
    return None if found == b"null" else read_row(HeartbeatAsRead, found)


def list_page(database: Database, monitor_id: UUID, page: PageQuery) -> bytes:
    """Return a page of a monitor's pings as a JSON array, or `null` where the caller sees no such monitor."""
    return database.execute(call("list_pings", {"monitor_id": str(monitor_id), **before_arguments(page)}))


def read_body(database: Database, monitor_id: UUID, ping_id: UUID) -> bytes:
    """Return the text of one ping as a one-element JSON array of {body}. Raises NotFound."""
    query = table("pings").select("body").eq("id", ping_id).eq("monitor_id", monitor_id)
    return database.execute_one(query.not_.is_("body", "null").limit(1))
