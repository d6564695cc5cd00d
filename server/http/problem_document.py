"""The one shape of every error: RFC 9457 problem details, whoever serves it."""

import logging
from typing import Any, Final

from server.errors import AppError, Unauthenticated

PROBLEM_JSON: Final = "application/problem+json"
MOST_FAULTS_SHOWN: Final = 100  # a body of 1 MB can hold many more
log = logging.getLogger("tocsin.errors")


def problem(error: AppError, request_id: str) -> dict[str, Any]:
    """Return the problem document of a refusal."""
    document: dict[str, Any] = {
        "type": f"urn:tocsin:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        **error.members,
    }
    if error.faults:
        document["errors"] = [
            {"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in error.faults[:MOST_FAULTS_SHOWN]
        ]
    return document


def note_refusal(error: AppError, request_id: str) -> None:
    """Log why somebody was refused, where there is more to say than they were told."""
    if error.reason:
        level = logging.ERROR if error.status == 500 else logging.WARNING if error.status > 500 else logging.INFO
        log.log(level, error.reason, extra={"request_id": request_id, "code": error.code})


def problem_headers(error: AppError, *, has_authorization: bool) -> list[tuple[str, str]]:
    """Return the headers that go with the document; the caller may have sent an Authorization header or none."""
    headers = [("Content-Type", PROBLEM_JSON), ("Cache-Control", "no-store")]
    if error.retry_after_seconds is not None:
        headers.append(("Retry-After", str(error.retry_after_seconds)))
    if isinstance(error, Unauthenticated):
        said = ', error="invalid_token"' if has_authorization else ""  # RFC 6750, 3.1
        headers.append(("WWW-Authenticate", f'Bearer realm="tocsin"{said}'))
    return headers
