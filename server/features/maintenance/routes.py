"""Maintenance windows: create, list, read, change, end, delete."""

from datetime import UTC, datetime
from uuid import UUID

from server.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound, PreconditionFailed
from server.features.maintenance import rules, store
from server.features.maintenance.schemas import WindowAndRole, WindowDraft, WindowNow, WindowPatch, WindowQuery
from server.features.orgs.rules import may_edit
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature
from server.http.tenancy import org_to_write_to
from server.recurrence import InvalidSchedule, Schedule, Written, require_sound, write_out

feature = Feature("Maintenance")


@feature.route(
    "POST",
    "/v1/maintenance-windows",
    status=201,
    body=WindowDraft,
    answers=WindowNow,
    refusals=(Forbidden,),
)
def create_maintenance_window(call: Call, body: WindowDraft) -> Reply:
    """Announce maintenance, once or recurring. What has begun already counts from now on."""
    _require_scope(body.all_monitors, body.monitor_ids)
    written = _written(_schedule(body), datetime.now(UTC), must_lie_ahead=True)
    org_id = org_to_write_to(call, body.org_id)
    draft = body.model_dump(mode="json") | {"org_id": str(org_id)}
    created = store.create(call.database, draft, written)
    return replies.one(WindowNow, created, status=201, location="/v1/maintenance-windows/{id}")


@feature.route("GET", "/v1/maintenance-windows", query=WindowQuery, list_of=WindowNow)
def list_maintenance_windows(call: Call, query: WindowQuery) -> Reply:
    """List maintenance windows, newest first; with `active=true`, what is in maintenance now."""
    return replies.page(WindowNow, store.list_page(call.database, query, query.org_id, query.active), query)


@feature.route("GET", "/v1/maintenance-windows/<uuid:window_id>", answers=WindowNow, refusals=(NotFound,))
def read_maintenance_window(call: Call, window_id: UUID) -> Reply:
    """Read one maintenance window."""
    return replies.one(WindowNow, store.read(call.database, window_id))


@feature.route(
    "PATCH",
    "/v1/maintenance-windows/<uuid:window_id>",
    body=WindowPatch,
    answers=WindowNow,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
)
def update_maintenance_window(call: Call, window_id: UUID, body: WindowPatch) -> Reply:
    """Change a maintenance window. What is over stays; what goes on ends, or goes on as the change has it."""
    current = _window_to_edit(call, window_id)
    if call.version is not None and call.version != current.version:
        raise PreconditionFailed
    changed = current.model_copy(update={name: getattr(body, name) for name in body.model_fields_set})
    if body.model_fields_set & {"all_monitors", "monitor_ids"}:
        _require_scope(changed.all_monitors, changed.monitor_ids)
    written = None
    if rules.moves_occurrences(body.model_fields_set):
        is_rescheduled = _schedule(changed) != _schedule(current)
        written = _written(_schedule(changed), datetime.now(UTC), must_lie_ahead=is_rescheduled)
    changes = body.model_dump(mode="json", exclude_unset=True)
    # Held against the version as it was read: the occurrences follow from all of the window, not from the change alone.
    updated = store.update(call.database, window_id, changes, current.version, written)
    if updated is None:
        raise _overtaken(call)
    return replies.one(WindowNow, updated)


@feature.route(
    "POST",
    "/v1/maintenance-windows/<uuid:window_id>/end",
    answers=WindowNow,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
)
def end_maintenance_window(call: Call, window_id: UUID) -> Reply:
    """End what goes on now, before its time. What recurs comes again. 409 where nothing goes on."""
    ended = store.end(call.database, window_id, call.version)
    if ended is None:
        raise _overtaken(call)
    return replies.one(WindowNow, ended)


@feature.route(
    "DELETE",
    "/v1/maintenance-windows/<uuid:window_id>",
    status=204,
    refusals=(NotFound, Forbidden, PreconditionFailed),
)
def delete_maintenance_window(call: Call, window_id: UUID) -> Reply:
    """Delete a maintenance window. What goes on ends, and what is over stays in the history of its monitors."""
    _window_to_edit(call, window_id)
    if not store.delete(call.database, window_id, call.version):
        raise PreconditionFailed if call.version is not None else NotFound
    return replies.nothing()


def _window_to_edit(call: Call, window_id: UUID) -> WindowAndRole:
    current = replies.read_row(WindowAndRole, store.read_for_writing(call.database, window_id))
    if not may_edit(current.my_role):
        raise Forbidden("Changing maintenance windows needs the role editor, admin or owner.")
    return current


def _overtaken(call: Call) -> PreconditionFailed | Conflict:
    if call.version is not None:
        return PreconditionFailed()
    return Conflict("Somebody else changed the window at the same moment. Read it again.")


def _require_scope(all_monitors: bool, monitor_ids: list[UUID]) -> None:
    fault = rules.fault_of_scope(all_monitors, len(monitor_ids))
    if fault is not None:
        raise InvalidInput(faults=[Fault("/monitor_ids", "scope_unclear", fault)])


def _schedule(window: WindowDraft | WindowAndRole) -> Schedule:
    return Schedule(window.starts_at, window.ends_at, window.time_zone, window.recurrence)


def _written(schedule: Schedule, now: datetime, *, must_lie_ahead: bool) -> Written:
    try:
        return require_sound(schedule, now) if must_lie_ahead else write_out(schedule, now)
    except InvalidSchedule as wrong:
        raise InvalidInput(faults=[Fault(f"/{wrong.field}", wrong.code, wrong.detail)]) from None
