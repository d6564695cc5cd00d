"""The HTTP session under supabase-py's query builder: pyreqwest's client behind the one method that the builder calls.

Why not httpx: its pool scans every idle connection on each request, so that a request costs five times as much CPU and
more still under load (docs/decisions.md has the figures; `benchmarks/transport.py` prints them). pyreqwest keeps no
cookies, follows no redirect here, shares nothing between requests but connections, and never logs a URL.
tests/http/test_transport.py pins what the builder asks of a session.
"""

from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from httpx import Headers, QueryParams
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import ConnectTimeoutError, PoolTimeoutError, PyreqwestError, RequestTimeoutError

from server.errors import TimedOut, Unavailable

CONNECT_TIMEOUT = timedelta(seconds=2)
ANSWER_TIMEOUT = timedelta(seconds=5)
QUEUE_TIMEOUT = timedelta(seconds=1)
# Fewer than the server has threads: while every call waits for a slow upstream, threads are left to say so.
MAX_CALLS_IN_FLIGHT = 48


class UpstreamAnswer:
    """One answer of the upstream, read whole. `headers` are looked up without regard to case."""

    __slots__ = ("content", "headers", "status_code")

    def __init__(self, status_code: int, headers: Any, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content

    @property
    def is_success(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status_code < 300


class UpstreamSession:
    """A shared, thread-safe pool of HTTP/1.1 connections to Supabase.

    At most `max_in_flight` calls run at once; a further one waits up to QUEUE_TIMEOUT for a place.
    Raises Unavailable (503) where the upstream cannot be reached or the queue is full, TimedOut (504) where it is slow.
    """

    auth = None  # what the builder falls back to where it has no Authorization; it always has

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

    def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        params: QueryParams | None = None,
        headers: Headers | None = None,
        auth: object = None,
    ) -> UpstreamAnswer:
        """Send one request and read the answer whole. The signature is httpx.Client.request's, as far as it is used."""
        request = self._client.request(method, f"{url}?{params}" if params else url)
        if headers:
            request = request.headers(headers.multi_items())
        if content is not None:
            request = request.body_bytes(content)
        try:
            answer = request.build().send()
            return UpstreamAnswer(answer.status, answer.headers, bytes(answer.bytes()))
        except PoolTimeoutError as error:
            raise Unavailable(
                "Too many requests wait for the database.", retry_after_seconds=1, reason="upstream_queue_full"
            ) from error
        except ConnectTimeoutError as error:
            raise Unavailable(retry_after_seconds=1, reason=type(error).__name__) from error
        except RequestTimeoutError as error:
            raise TimedOut(retry_after_seconds=1, reason=type(error).__name__) from error
        except PyreqwestError as error:
            raise Unavailable(retry_after_seconds=1, reason=type(error).__name__) from error

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
