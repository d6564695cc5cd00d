"""The one shape of every error: RFC 9457 problem details. Never a stack trace, never an upstream's words."""

import logging
from collections.abc import Sequence

import orjson
from flask import Flask, request
from werkzeug.exceptions import HTTPException

from server.errors import (
    AppError,
    BodyTooLarge,
    MalformedRequest,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    UnsupportedMediaType,
)
from server.http.problem_document import note_refusal, problem, problem_headers
from server.http.wsgi import Answer

_OF_HTTP: dict[int, type[AppError]] = {
    400: MalformedRequest,
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}
log = logging.getLogger("tocsin.errors")


def install(app: Flask) -> None:
    """Make every error of the app leave in this shape."""

    @app.errorhandler(AppError)
    def refuse(error: AppError) -> Answer:
        note_refusal(error, _request_id())
        return _answer(error)

    @app.errorhandler(HTTPException)
    def refuse_in_our_words(error: HTTPException) -> Answer:
        kind = _OF_HTTP.get(error.code or 500, MalformedRequest if (error.code or 500) < 500 else AppError)
        allowed = getattr(error, "valid_methods", None)
        return _answer(kind(), [("Allow", ", ".join(sorted(allowed)))] if allowed else [])

    @app.errorhandler(Exception)
    def admit_a_bug(error: Exception) -> Answer:
        log.error("unhandled", exc_info=error, extra={"request_id": _request_id()})
        return _answer(AppError())


def _request_id() -> str:
    return str(request.environ["tocsin.request_id"])


def _answer(error: AppError, more: Sequence[tuple[str, str]] = ()) -> Answer:
    headers = [*problem_headers(error, has_authorization="Authorization" in request.headers), *more]
    return Answer(orjson.dumps(problem(error, _request_id())), error.status, headers)
