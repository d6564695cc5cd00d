"""What an unsuccessful answer of PostgREST means to our callers: from its code or SQLSTATE to one of our errors."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from server.errors import (
    AppError,
    Conflict,
    Fault,
    Forbidden,
    Gone,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    TimedOut,
    Unauthenticated,
    Unavailable,
)

_UNAVAILABLE = re.compile(r"PGRST00[0-3]|08...|53...|57P0.")
_TOKEN_REFUSED = frozenset({"PGRST300", "PGRST301", "PGRST302", "PGRST303"})
_INVALID = frozenset({"23514", "23502", "22P02", "22001", "22003", "22007", "22008", "22P05"})
_TRANSIENT = frozenset({"40001", "40P01"})
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
_QUOTED_CONSTRAINT = re.compile(r'constraint "([a-z_]+)"')
_BY_STATUS: dict[int, type[AppError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: PreconditionFailed,
    422: InvalidInput,
    503: Unavailable,
}


@dataclass(frozen=True, slots=True)
class UpstreamProblem:
    """The error body of PostgREST. `code` "" where the body was none of PostgREST's."""

    code: str
    message: str
    details: str


def is_success(status: int, body: bytes) -> bool:
    """Tell whether an answer is what was asked for: 2xx, and not some proxy's HTML page, which may say 200 as well."""
    return 200 <= status < 300 and _PAGE.match(body) is None


def read_rows(body: bytes) -> list[Any]:
    """Read the rows that the database answered. Raises Unavailable, and AppError where it is something else."""
    rows = read_answer(body)
    if not isinstance(rows, list):
        raise AppError(reason=f"upstream_shape: no rows but {type(rows).__name__}")
    return rows


def read_answer(body: bytes) -> Any:
    """Read what the database answered. Raises Unavailable where it is no JSON, since it was cut off."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Unavailable(retry_after_seconds=1, reason="upstream_answered_no_json") from None


def read_problem(body: bytes) -> UpstreamProblem:
    """Read an error body; HTML, truncated JSON and the like give the empty problem."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        return UpstreamProblem("", "", "")
    return UpstreamProblem(*(str(found.get(name) or "") for name in ("code", "message", "details")))


def is_transient(problem: UpstreamProblem) -> bool:
    """True where the same call may well succeed if it is made once more: a serialization failure or a deadlock."""
    return problem.code in _TRANSIENT


def refusal(status: int, problem: UpstreamProblem) -> AppError:
    """Return our error for an unsuccessful answer. The upstream's own words go to the log, never to the caller."""
    code, reason = problem.code, f"{status} {problem.code} {problem.message}"[:500]
    if not code or _UNAVAILABLE.fullmatch(code):
        return Unavailable(retry_after_seconds=1, reason=reason)
    if code in _TOKEN_REFUSED:
        return Unauthenticated(reason=reason)
    if code == "PGRST116":
        return NotFound(reason=reason)
    if code in {"23505", "23503"}:
        return Conflict(code=_constraint(problem) or "conflict", reason=reason)
    if code in _INVALID:
        return _invalid(problem, reason)
    if code == "42501":
        return Forbidden(reason=reason)
    if code in _TRANSIENT:
        return Conflict("Somebody else changed the same thing at the same moment. Try again.", reason=reason)
    if code == "57014":
        return TimedOut(retry_after_seconds=1, reason=reason)
    if code.startswith("PT"):
        return _raised_by_us(status, problem, reason)
    return AppError(reason=reason)


def _raised_by_us(status: int, problem: UpstreamProblem, reason: str) -> AppError:
    """`raise … using errcode = 'PT409'`: the message is our stable code, the detail our text."""
    kind = _BY_STATUS.get(status)
    if kind is None:
        return AppError(reason=reason)
    return kind(problem.details or None, code=problem.message or None, reason=reason)


def _invalid(problem: UpstreamProblem, reason: str) -> InvalidInput:
    constraint = _constraint(problem)
    if not constraint:
        return InvalidInput("A value cannot be stored as it is.", reason=reason)
    fault = Fault("", constraint, f"The rule {constraint.replace('_', ' ')} does not hold.")
    return InvalidInput(faults=[fault], reason=reason)


def _constraint(problem: UpstreamProblem) -> str | None:
    found = _QUOTED_CONSTRAINT.search(problem.message)
    return found.group(1) if found else None
