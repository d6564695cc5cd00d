"""What somebody asks of the stream, read from the request, whichever way it came."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

from server.errors import Fault, InvalidInput, MalformedRequest
from server.features.events.rules import Position, decode_position
from server.features.events.schemas import StreamQuery
from server.http.parsing import parse_query, refuse_credentials

STREAM_PATH: Final = "/v1/events/stream"


def header_values(scope: Mapping[str, Any], name: bytes) -> list[str]:
    """Return the values of all headers of this name."""
    return [value.decode("latin-1") for given, value in scope["headers"] if given == name]


def read_sender(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return what `limits.client_address` reads of a request, by the names that it has in WSGI."""
    sender = {"REMOTE_ADDR": scope["client"][0]} if scope.get("client") else {}
    forwarded_for = header_values(scope, b"x-forwarded-for")
    return sender | ({"HTTP_X_FORWARDED_FOR": ",".join(forwarded_for)} if forwarded_for else {})


def read_query(scope: Mapping[str, Any]) -> StreamQuery:
    """Read the query string. Raises InvalidInput, and MalformedRequest for a token: addresses end up in logs."""
    try:
        pairs = parse_qs(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise MalformedRequest("The query string cannot be read.") from None
    refuse_credentials(pairs)
    return parse_query(StreamQuery, pairs)


def resume_position(last_event_id: Sequence[str], query: StreamQuery) -> Position | None:
    """Return where a reader stands: by Last-Event-ID, else by `after`, else None. Raises InvalidInput."""
    if not last_event_id or not last_event_id[0]:
        return query.position
    try:
        return decode_position(last_event_id[0] if len(last_event_id) == 1 else "")
    except ValueError as error:
        raise InvalidInput(faults=[Fault("Last-Event-ID", "value_error", str(error))]) from None
