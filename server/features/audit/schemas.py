"""The audit trail on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.errors import AppError
from server.features.audit.rules import REDACTED, Position, csv_lines, decode_position, redact
from server.http.fields import Moment
from server.http.pagination import DEFAULT_LIMIT, LARGEST_LIMIT, OPAQUE
from server.http.shaping import rfc3339

Word = Annotated[str, Field(max_length=100, pattern="^[a-z_.]+$")]
CSV_HEADER = (
    *("id", "occurred_at", "org_id", "type", "actor_kind", "actor_id", "actor_email", "session_id"),
    *("subject_kind", "subject_id", "before", "after"),
)


class AuditActor(BaseModel):
    """Who did it."""

    kind: Literal["user", "key", "system"]
    id: UUID | None = Field(description="The user's or the key's id; null for the system.")
    email: str | None = Field(
        description="The user's e-mail address, where the account still exists.", examples=["ada@example.com"]
    )
    session_id: UUID | None = Field(description="Which sign-in of the user it was, where that is known.")


class AuditSubject(BaseModel):
    """What it was done to."""

    kind: str = Field(examples=["monitor"])
    id: UUID


class AuditEntry(BaseModel):
    """One thing that happened in an organisation."""

    id: int = Field(description="Unique, and in the order of the changes of one moment.", examples=[4711])
    org_id: UUID
    occurred_at: datetime
    type: str = Field(
        description="What was done, such as monitor.updated or incident.acknowledged.", examples=["monitor.updated"]
    )
    actor: AuditActor
    subject: AuditSubject
    before: dict[str, Any] | None = Field(
        description="As it was, secrets redacted; null where it was created.", examples=[{"name": "Home"}]
    )
    after: dict[str, Any] | None = Field(
        description="As it is now, secrets redacted; null where it was deleted.", examples=[{"name": "Home page"}]
    )


def _ours(cursor: str) -> str:
    decode_position(cursor)
    return cursor


class AuditFilter(BaseModel):
    """Which entries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    org_id: Annotated[
        UUID | None, Field(description="Of which organisation; may be left out by who belongs to one alone.")
    ] = None
    actor_id: Annotated[UUID | None, Field(description="Only what this user or key did.")] = None
    subject_kind: Annotated[Word | None, Field(description="Only what was done to things of this kind.")] = None
    subject_id: Annotated[UUID | None, Field(description="Only what was done to this thing.")] = None
    type: Annotated[Word | None, Field(description="Only this type, such as monitor.updated.")] = None
    from_at: Annotated[Moment | None, Field(alias="from", description="Not before this moment, RFC 3339.")] = None
    to_at: Annotated[Moment | None, Field(alias="to", description="Before this moment, RFC 3339.")] = None


class AuditQuery(AuditFilter):
    """Which entries, and which page of them."""

    limit: Annotated[int, Field(ge=1, le=LARGEST_LIMIT, description="How many rows to answer at most.")] = DEFAULT_LIMIT
    cursor: Annotated[
        Annotated[str, Field(max_length=200, json_schema_extra=OPAQUE), AfterValidator(_ours)] | None,
        Field(description="`next_cursor` of the page before; absent for the first page."),
    ] = None

    @property
    def position(self) -> Position | None:
        """Where this page begins; None: at the newest entry."""
        return decode_position(self.cursor) if self.cursor else None


class ExportQuery(AuditFilter):
    """Which entries, and what kind of file."""

    format: Annotated[Literal["csv", "ndjson"], Field(description="csv, or ndjson: one JSON object a line.")] = "csv"


def present(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the database as an AuditEntry on the wire. Raises AppError where it does not have its columns."""
    try:
        kind = row["subject_kind"]
        return {
            "id": row["seq"],
            "org_id": row["org_id"],
            "occurred_at": rfc3339(row["occurred_at"]),
            "type": row["type"],
            "actor": {
                "kind": row["actor_kind"],
                "id": row["actor_id"],
                "email": row["actor_email"],
                "session_id": row["session_id"],
            },
            "subject": {"kind": kind, "id": row["subject_id"]},
            "before": _timed(redact(kind, row["before"])),
            "after": _timed(redact(kind, row["after"])),
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: AuditEntry {type(error).__name__} {error}") from None


def _timed(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """Spell the times of a row as everywhere on the wire; its columns of times are called …_at or …_since."""
    if row is not None:
        for column, value in row.items():
            if column.endswith(("_at", "_since")) and isinstance(value, str) and value != REDACTED:
                row[column] = rfc3339(value)
    return row


def as_ndjson(entries: list[dict[str, Any]]) -> bytes:
    """Return entries as lines of JSON."""
    return b"".join(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in entries)


def as_csv(entries: list[dict[str, Any]]) -> bytes:
    """Return entries as lines of CSV, in the order of CSV_HEADER."""
    return csv_lines(map(_record, entries)).encode()


def _record(entry: dict[str, Any]) -> tuple[object, ...]:
    actor, subject = entry["actor"], entry["subject"]
    return (
        *(entry[name] for name in CSV_HEADER[:4]),
        *(actor[name] for name in ("kind", "id", "email", "session_id")),
        *(subject[name] for name in ("kind", "id")),
        *(None if entry[name] is None else orjson.dumps(entry[name]).decode() for name in ("before", "after")),
    )
