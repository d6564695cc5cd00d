"""Flask without what an API of tokens has no use for: sessions, host matching, responses that may still change.

Each piece is a seam that Flask documents for replacing; together they take 40 µs off every request (docs/decisions.md).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from os import SEEK_END
from typing import IO, TYPE_CHECKING, Any, Final

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TEXT: Final = "text/plain; charset=utf-8"
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_BLOCK_BYTES = 64 * 1024
_WITHOUT_LENGTH = frozenset({204, 304})  # RFC 9110, 8.6


class Answer:
    """A response that is whole: status, headers, body."""

    __slots__ = ("body", "headers", "status_code")

    def __init__(self, body: bytes, status_code: int, headers: Sequence[tuple[str, str]]) -> None:
        self.body = body
        self.status_code = status_code
        self.headers = headers

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        """Answer (PEP 3333)."""
        headers = list(self.headers)
        if self.status_code not in _WITHOUT_LENGTH:
            headers.append(("Content-Length", str(len(self.body))))
        start_response(_STATUS_LINES[self.status_code], headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


class Download:
    """A response whose body is a file of ours, sent a block at a time and closed when it is sent or nobody listens.

    Its length is told beforehand, so that a transfer that breaks off can never be taken for a whole one: granian ends a
    body of unknown length in good order even where what makes it has failed.
    """

    __slots__ = ("file", "headers", "status_code")

    def __init__(self, file: IO[bytes], status_code: int, headers: Sequence[tuple[str, str]]) -> None:
        self.file = file
        self.status_code = status_code
        self.headers = headers

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer (PEP 3333)."""
        length = self.file.seek(0, SEEK_END)
        self.file.seek(0)
        start_response(_STATUS_LINES[self.status_code], [*self.headers, ("Content-Length", str(length))])
        if environ["REQUEST_METHOD"] == "HEAD":
            self.file.close()
            return []
        return _Blocks(self.file)


class _Blocks:
    """A file, block by block. Whoever sends it calls `close`, also where the client has gone (PEP 3333)."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = b"" if self._file.closed else self._file.read(_BLOCK_BYTES)
        if not block:
            self.close()
            raise StopIteration
        return block

    def close(self) -> None:
        self._file.close()


class _NoSessions(SessionInterface):
    """The access token is the session."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none

    def is_null_session(self, obj: object) -> bool:
        return True


class Api(Flask):
    """The Flask application of the API. Views and error handlers return an Answer."""

    response_class: Callable[..., Any] = Answer  # type: ignore[assignment]  # any WSGI app will do: Flask calls it
    session_interface = _NoSessions()

    def full_dispatch_request(self) -> Any:
        """Run the view, or its error's handler. No hooks stand around it: the envelope does what they would."""
        try:
            return self.dispatch_request()
        except Exception as error:
            return self.handle_user_exception(error)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what matches a request to a route, by path and method alone: no route depends on the host."""
        if request is None:
            return None
        return MapAdapter(self.url_map, "", "", "", request.scheme, request.path, request.method)
