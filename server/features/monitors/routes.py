"""Monitors: create, list, read, change, delete, pause, resume, preview."""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any, TypeVar
from uuid import UUID

from server.data.api_keys import ApiKey
from server.data.failures import problem_of, read_rows, refusal_within
from server.errors import (
    AppError,
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    RateLimited,
)
from server.features.monitors import rules, store
from server.features.monitors.schemas import (
    BatchOutcome,
    BatchResult,
    Monitor,
    MonitorAndMore,
    MonitorAndRole,
    MonitorBatch,
    MonitorDraft,
    MonitorInclude,
    MonitorPatch,
    MonitorQuery,
    MonitorSettings,
    Preview,
    PreviewDraft,
    QuotaHit,
    Refused,
    RefusedFault,
)
from server.features.orgs.rules import may_edit, may_found
from server.http import replies
from server.http.merging import merge
from server.http.parsing import parse_part
from server.http.replies import Reply
from server.http.routing import Call, Feature
from server.http.tenancy import org_to_write_to
from server.probes.kinds import read_check
from server.probes.prober import check_once

feature = Feature("Monitors")
Draft = TypeVar("Draft", bound=MonitorSettings)

# A preview holds a server thread for up to 10 s, so that only a few may run at once in a process.
MAX_PREVIEWS = 4
_preview_places = BoundedSemaphore(MAX_PREVIEWS)


@feature.route("POST", "/v1/monitors", status=201, body=MonitorDraft, answers=Monitor, refusals=(Forbidden,))
def create_monitor(call: Call, body: MonitorDraft) -> Reply:
    """Create a monitor. Its first check follows at once."""
    completed = _completed(body)
    org_id = org_to_write_to(call, body.org_id)
    row = completed.model_dump(mode="json") | {"org_id": str(org_id)}
    return replies.one(Monitor, store.create(call.database, row), status=201, location="/v1/monitors/{id}")


@feature.route("POST", "/v1/monitors:batch", body=MonitorBatch, answers=BatchOutcome, refusals=(Forbidden,))
def create_monitors(call: Call, body: MonitorBatch) -> Reply:
    """Create up to 500 monitors in one organisation: all or none, or each by itself."""
    drafts, refused = _read_drafts(call, body)
    org_id = org_to_write_to(call, body.org_id)
    rows = [draft.model_dump(mode="json") | {"org_id": str(org_id)} for draft in drafts.values()]
    try:
        created = store.create_all(call.database, rows, each_by_itself=body.each_by_itself) if rows else b"[]"
    except InvalidInput as refusal:
        raise InvalidInput(faults=[_placed(fault, drafts) for fault in refusal.faults]) from None
    results = refused + [_batch_result(index, row) for index, row in zip(drafts, read_rows(created), strict=True)]
    return replies.shaped(
        BatchOutcome(
            created=sum(result.monitor is not None for result in results),
            refused=sum(result.refused is not None for result in results),
            results=sorted(results, key=lambda result: result.index),
        )
    )


@feature.route("GET", "/v1/monitors", query=MonitorQuery, list_of=MonitorAndMore)
def list_monitors(call: Call, query: MonitorQuery) -> Reply:
    """List monitors, newest first unless `order` says otherwise."""
    rows = store.list_page(
        call.database,
        query,
        org_id=query.org_id,
        states=query.state,
        kinds=query.kind,
        paused=query.paused,
        name_holds=query.q,
        include=query.include,
    )
    return replies.page(MonitorAndMore, rows, query, included=query.include)


@feature.route(
    "GET",
    "/v1/monitors/<uuid:monitor_id>",
    query=MonitorInclude,
    answers=MonitorAndMore,
    refusals=(NotFound,),
)
def read_monitor(call: Call, monitor_id: UUID, query: MonitorInclude) -> Reply:
    """Read one monitor."""
    found = store.read(call.database, monitor_id, query.include)
    return replies.one(MonitorAndMore, found, included=query.include)


@feature.route(
    "PATCH",
    "/v1/monitors/<uuid:monitor_id>",
    body=MonitorPatch,
    answers=Monitor,
    refusals=(NotFound, Forbidden, PreconditionFailed, Conflict),
)
def update_monitor(call: Call, monitor_id: UUID, body: MonitorPatch) -> Reply:
    """Change a monitor. It is checked at once; what asks something else starts the count of failures afresh.

    `options` are merged into those that there are; its kind stays what it is.
    """
    current = _monitor_to_edit(call, monitor_id)
    changes = _read_change(call, body, current)
    # What was merged stands on what was read, and on nothing that somebody has written since.
    version = current.version if "options" in changes else call.version
    changed = store.update(call.database, monitor_id, changes, version)
    if changed is None and "options" in changes and call.version is None:
        raise Conflict("Somebody else has changed or deleted it at the same moment. Send your change again.")
    return _changed(call, changed)


@feature.route(
    "DELETE", "/v1/monitors/<uuid:monitor_id>", status=204, refusals=(NotFound, Forbidden, PreconditionFailed)
)
def delete_monitor(call: Call, monitor_id: UUID) -> Reply:
    """Delete a monitor with its history. An open incident is resolved, and its channels are told."""
    _monitor_to_edit(call, monitor_id)
    if not store.delete(call.database, monitor_id, call.version):
        raise PreconditionFailed if call.version is not None else NotFound
    return replies.nothing()


@feature.route(
    "POST",
    "/v1/monitors/<uuid:monitor_id>/pause",
    answers=Monitor,
    refusals=(NotFound, Forbidden, PreconditionFailed),
)
def pause_monitor(call: Call, monitor_id: UUID) -> Reply:
    """Stop checking a monitor. An open incident is resolved, since nobody watches any more."""
    _monitor_to_edit(call, monitor_id)
    return _changed(call, store.set_paused(call.database, monitor_id, True, call.version))


@feature.route(
    "POST",
    "/v1/monitors/<uuid:monitor_id>/resume",
    answers=Monitor,
    refusals=(NotFound, Forbidden, PreconditionFailed),
)
def resume_monitor(call: Call, monitor_id: UUID) -> Reply:
    """Check a paused monitor again, at once. Coming up from a pause is silent."""
    _monitor_to_edit(call, monitor_id)
    return _changed(call, store.set_paused(call.database, monitor_id, False, call.version))


@feature.route(
    "POST", "/v1/monitors/preview", body=PreviewDraft, answers=Preview, refusals=(Forbidden,), limit="costly"
)
def preview_monitor(call: Call, body: PreviewDraft) -> Reply:
    """Run a check once, now, from the API's own network, and save nothing but, under an Idempotency-Key, the answer."""
    if not isinstance(call.principal, ApiKey) and not may_found(is_anonymous=call.user.is_anonymous):
        raise Forbidden("Anonymous users cannot run checks.")
    if call.once is None:
        return replies.shaped(_look(call, body))
    kept = call.database.recall()
    if kept is None:
        kept = store.keep_preview(call.database, _look(call, body).model_dump(mode="json"))
    return replies.shaped(replies.read_row(Preview, kept))


def _look(call: Call, body: PreviewDraft) -> Preview:
    check = read_check(body.kind, body.target or "", body.timeout_seconds, body.options.model_dump(), body.assertions)
    if not _preview_places.acquire(blocking=False):
        raise RateLimited("Too many previews run at the moment.", retry_after_seconds=2)
    try:
        seen = check_once(check, call.services.egress, datetime.now(UTC))
    finally:
        _preview_places.release()
    return Preview(
        outcome=seen.outcome,
        started_at=seen.started_at,
        status_code=seen.status_code,
        error_kind=seen.error_kind,
        error_detail=seen.error_detail,
        remote_ip=seen.remote_ip,
        tls_expires_at=seen.tls_expires_at,
        assertions=list(seen.findings) or None,
        **asdict(seen.timings),
    )


def _monitor_to_edit(call: Call, monitor_id: UUID) -> MonitorAndRole:
    current = replies.read_row(MonitorAndRole, store.read_for_writing(call.database, monitor_id))
    if not may_edit(current.my_role):
        raise Forbidden("Changing monitors needs the role editor, admin or owner.")
    if call.version is not None and call.version != current.version:
        raise PreconditionFailed
    return current


def _changed(call: Call, changed: bytes | None) -> Reply:
    if changed is None:
        raise PreconditionFailed if call.version is not None else NotFound
    return replies.one(Monitor, changed)


def _read_change(call: Call, body: MonitorPatch, current: MonitorAndRole) -> dict[str, Any]:
    """Return the columns that a change writes: read once more, now that the kind is known, and `options` merged.

    Raises InvalidInput.
    """
    given = body.model_dump(mode="json", exclude_unset=True)
    auth = None
    if "options" in given:
        given["options"], auth = _merged_options(current.options, given["options"])
    context = {"egress": call.services.egress, "kind": current.kind}
    changes = parse_part(MonitorPatch, given, "", context).model_dump(mode="json", exclude_unset=True)
    if auth is not None:
        changes["options"]["auth"] = auth
    if current.kind != "heartbeat":
        times = ("interval_seconds", "timeout_seconds", "retry_interval_seconds")
        _require_consistent(*(changes.get(name, getattr(current, name)) for name in times))
    return changes


def _merged_options(current: dict[str, Any], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the options with a change merged in, and the `auth` that stays, as the database shows it.

    Whoever sends `auth` sends the whole of it; sent back as it was read, it stays.
    """
    stays = "auth" not in given or given["auth"] == current.get("auth")
    merged: dict[str, Any] = merge(current, {**given, "auth": None})
    if stays:
        return merged, current.get("auth")
    return merged | {"auth": given["auth"]}, None


def _completed(draft: Draft, pointer: str = "") -> Draft:
    """Fill in what was left out and follows from the rest. Raises InvalidInput where the times do not agree."""
    if draft.kind == "heartbeat":
        slug = draft.slug if "slug" in draft.model_fields_set else rules.slug_of(draft.name)
        return draft.model_copy(update={"slug": slug, "fail_threshold": 1, "recover_threshold": 1})
    interval_seconds = draft.interval_seconds or rules.DEFAULT_INTERVAL_SECONDS
    timeout_seconds = draft.timeout_seconds or rules.default_timeout(interval_seconds)
    retry_interval_seconds = draft.retry_interval_seconds or rules.retry_interval(interval_seconds)
    _require_consistent(interval_seconds, timeout_seconds, retry_interval_seconds, pointer)
    return draft.model_copy(
        update={
            "interval_seconds": interval_seconds,
            "timeout_seconds": timeout_seconds,
            "retry_interval_seconds": retry_interval_seconds,
            "fail_threshold": draft.fail_threshold or rules.DEFAULT_FAIL_THRESHOLD,
            "recover_threshold": draft.recover_threshold or rules.DEFAULT_RECOVER_THRESHOLD,
        }
    )


def _read_drafts(call: Call, body: MonitorBatch) -> tuple[dict[int, MonitorSettings], list[BatchResult]]:
    """Return the drafts that can be read, by their places, and what is said of the others.

    Raises InvalidInput with the faults of them all where they stand or fall together.
    """
    drafts: dict[int, MonitorSettings] = {}
    wrong: dict[int, InvalidInput] = {}
    context = {"egress": call.services.egress}
    for index, part in enumerate(body.monitors):
        pointer = f"/monitors/{index}"
        try:
            drafts[index] = _completed(parse_part(MonitorSettings, part, pointer, context), pointer)
        except InvalidInput as refusal:
            wrong[index] = refusal
    if wrong and not body.each_by_itself:
        raise InvalidInput(faults=[fault for refusal in wrong.values() for fault in refusal.faults])
    return drafts, [_refused_result(index, refusal) for index, refusal in wrong.items()]


def _batch_result(index: int, row: dict[str, Any]) -> BatchResult:
    if "refused" in row:
        return _refused_result(index, refusal_within(problem_of(row["refused"])), f"/monitors/{index}")
    return BatchResult(index=index, monitor=Monitor.model_validate(row["monitor"]), refused=None)


def _placed(fault: Fault, drafts: dict[int, MonitorSettings]) -> Fault:
    """Return a fault that the database found in one of the drafts, pointing into the one whose parent it speaks of."""
    for index, draft in drafts.items():
        for place, parent in enumerate(draft.depends_on):
            if fault.pointer == f"/depends_on/{place}" and str(parent) in fault.detail:
                return replace(fault, pointer=f"/monitors/{index}{fault.pointer}")
    return fault


def _refused_result(index: int, refusal: AppError, pointer: str = "") -> BatchResult:
    faults = [RefusedFault(pointer=pointer + f.pointer, code=f.code, detail=f.detail) for f in refusal.faults]
    quota = QuotaHit.model_validate(refusal.members["quota"]) if "quota" in refusal.members else None
    refused = Refused(status=refusal.status, code=refusal.code, detail=refusal.detail, errors=faults, quota=quota)
    return BatchResult(index=index, monitor=None, refused=refused)


def _require_consistent(
    interval_seconds: int, timeout_seconds: int, retry_interval_seconds: int, pointer: str = ""
) -> None:
    wrong = rules.inconsistencies(interval_seconds, timeout_seconds, retry_interval_seconds)
    if wrong:
        raise InvalidInput(
            faults=[Fault(f"{pointer}/{name}", "inconsistent", detail) for name, detail in wrong.items()]
        )
