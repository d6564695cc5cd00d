"""The refusals Tocsin knows: raised anywhere, turned into problem+json in one place (`http/problems.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in the input. `pointer` is an RFC 6901 JSON pointer ("": the whole) or a parameter's name."""

    pointer: str
    code: str
    detail: str


class AppError(Exception):
    """A refusal with an HTTP status, a stable `code` and a sentence for the caller.

    `retry_after_seconds` becomes the Retry-After header; `reason` goes to the log only.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"
    default_detail: ClassVar[str] = "Something went wrong on our side. The request id finds it in our logs."

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        faults: Sequence[Fault] = (),
        retry_after_seconds: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(detail or self.default_detail)
        self.detail = detail or self.default_detail
        self.code = code or self.default_code
        self.faults = tuple(faults)
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason


class MalformedRequest(AppError):
    """The request cannot be read at all: 400."""

    status, title = 400, "Malformed request"
    default_code, default_detail = "malformed_request", "The request could not be read."


class Unauthenticated(AppError):
    """No valid access token: 401. The answer never says why; `reason` does, in the log."""

    status, title = 401, "Unauthenticated"
    default_code = "unauthenticated"
    default_detail = "A valid Supabase access token is required: Authorization: Bearer <access_token>."


class Forbidden(AppError):
    """Known, and not allowed: 403."""

    status, title = 403, "Forbidden"
    default_code, default_detail = "forbidden", "Your role does not allow this."


class NotFound(AppError):
    """Absent, or hidden from the caller, which must look the same: 404."""

    status, title = 404, "Not found"
    default_code, default_detail = "not_found", "There is nothing here, or nothing that you may see."


class MethodNotAllowed(AppError):
    """The path exists, the method does not: 405."""

    status, title = 405, "Method not allowed"
    default_code, default_detail = "method_not_allowed", "This path does not answer to that method."


class NotAcceptable(AppError):
    """The caller accepts nothing that we speak: 406."""

    status, title = 406, "Not acceptable"
    default_code, default_detail = "not_acceptable", "This path answers with application/json."


class Conflict(AppError):
    """The state of things does not allow it now: 409."""

    status, title = 409, "Conflict"
    default_code, default_detail = "conflict", "The request conflicts with the present state."


class Gone(AppError):
    """It was there, and will not be again: 410."""

    status, title = 410, "Gone"
    default_code, default_detail = "gone", "This is no longer kept."


class PreconditionFailed(AppError):
    """`If-Match` names another version: 412."""

    status, title = 412, "Precondition failed"
    default_code = "precondition_failed"
    default_detail = "It was changed since you read it. Read it again and repeat your change."


class BodyTooLarge(AppError):
    """More than 1 MB: 413."""

    status, title = 413, "Body too large"
    default_code, default_detail = "body_too_large", "A request body may hold at most 1 MB (1,048,576 bytes)."


class UnsupportedMediaType(AppError):
    """The body is not JSON: 415."""

    status, title = 415, "Unsupported media type"
    default_code, default_detail = "unsupported_media_type", "The body must be application/json."


class InvalidInput(AppError):
    """Readable, but wrong; every fault at once: 422."""

    status, title = 422, "Invalid input"
    default_code, default_detail = "invalid_input", "Some values are not valid; errors lists each of them."


class RateLimited(AppError):
    """Too much at once: 429."""

    status, title = 429, "Too many requests"
    default_code, default_detail = "rate_limited", "Too many requests. Wait for Retry-After."


class Unavailable(AppError):
    """Something that we need does not answer: 503."""

    status, title = 503, "Unavailable"
    default_code, default_detail = (
        "unavailable",
        "The database does not answer at the moment. Nothing was lost; try again.",
    )


class TimedOut(Unavailable):
    """Something that we need answers too slowly: 504."""

    status, title = 504, "Timed out"
    default_code, default_detail = "timed_out", "The database took too long. Try again."
