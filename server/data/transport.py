"""The connections to Supabase: pyreqwest's client, shared by all requests and carrying nothing from one to the next.

Why not httpx, supabase-py's own: its pool scans every idle connection on each request, so that a call costs five times
as much CPU, and more still under load (docs/decisions.md; `benchmarks/transport.py` prints the figures). pyreqwest
keeps no cookies, follows no redirect here, and never logs a URL.
"""

from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import ConnectError, PoolTimeoutError, PyreqwestError, RequestTimeoutError

from server.errors import TimedOut, Unavailable

CONNECT_TIMEOUT = timedelta(seconds=2)
ANSWER_TIMEOUT = timedelta(seconds=5)
QUEUE_TIMEOUT = timedelta(seconds=1)
# Fewer than the server has threads: while every call waits for a slow upstream, threads are left to say so.
MAX_CALLS_IN_FLIGHT = 48


class UpstreamAnswer(NamedTuple):
    """One answer of the upstream, read whole."""

    status: int
    content: bytes


class UpstreamSession:
    """A shared, thread-safe pool of HTTP/1.1 connections.

    At most `max_in_flight` calls run at once; a further one waits up to QUEUE_TIMEOUT for a place.
    """

    def __init__(self, *, max_in_flight: int = MAX_CALLS_IN_FLIGHT, answer_timeout: timedelta = ANSWER_TIMEOUT) -> None:
        self._client: SyncClient = (
            SyncClientBuilder()
            .http1_only()
            .no_proxy()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .max_connections(max_in_flight)
            .pool_timeout(QUEUE_TIMEOUT)
            .pool_max_idle_per_host(max_in_flight)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(answer_timeout)
            .build()
        )

    def send(self, method: str, url: str, headers: Any, content: bytes | None = None) -> UpstreamAnswer:
        """Send one request; `headers` are pairs of names and values.

        A read whose connection broke before the answer began is sent once more, so it may take twice the timeout.
        Raises Unavailable (503) where the upstream cannot be reached or breaks off, or the queue is full; TimedOut
        (504) where it is slow or does not come to an end.
        """
        try:
            try:
                return self._send_once(method, url, headers, content)
            except ConnectError:
                # A kept connection may be closed at the moment at which a request leaves on it, and then nobody can
                # tell whether it arrived: a read may be repeated, a write may not.
                if method != "GET":
                    raise
                return self._send_once(method, url, headers, content)
        except PoolTimeoutError as error:
            raise Unavailable(
                "Too many requests wait for the database.", retry_after_seconds=1, reason="upstream_queue_full"
            ) from error
        # However far it came: pyreqwest calls it a ConnectTimeoutError also where the answer was awaited.
        except RequestTimeoutError as error:
            raise TimedOut(retry_after_seconds=1, reason=type(error).__name__) from error
        except PyreqwestError as error:
            raise Unavailable(retry_after_seconds=1, reason=type(error).__name__) from error

    def _send_once(self, method: str, url: str, headers: Any, content: bytes | None) -> UpstreamAnswer:
        request = self._client.request(method, url).headers(headers)
        if content is not None:
            request = request.body_bytes(content)
        # Read whole, and bounded by time alone: the upstream is our own, and a bound in bytes costs a sixth more CPU.
        answer = request.build().send()
        return UpstreamAnswer(answer.status, bytes(answer.bytes()))

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
