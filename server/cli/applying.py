"""Doing what a plan says, one thing after the other. What fails is told, and the rest goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from server.cli.client import Api, Refused
from server.cli.planning import Action, Made, Plan, Step
from server.cli.resources import TRAITS

NewId = Callable[[], UUID]
Tell = Callable[[int, int, Step, "Failure | None"], None]
KeepSecret = Callable[[str, str], None]
# What every later step would be answered as well.
_HOPELESS = frozenset({"unreachable", "not_the_api"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that was not done, and why: each reason with its line in the file, 0 where there is none."""

    step: Step
    reasons: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class Outcome:
    """What became of a plan."""

    done: list[Step] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def carry_out(plan: Plan, api: Api, new_id: NewId, tell: Tell, keep_secret: KeepSecret) -> Outcome:
    """Do every step, and `tell` of each: its number, of how many, what became of it.

    `keep_secret` gets a new channel's name and signing secret at once: the API shows it to nobody again.

    1. Make and change, in the plan's order: what a step refers to is there before it.
    2. Delete, last, so that a run that breaks off leaves too much and not too little; of what was to be replaced only
       that for which there is a successor.
    """
    return _Run(api, new_id, tell, keep_secret, len(plan.steps)).run(plan)


class _Run:
    def __init__(self, api: Api, new_id: NewId, tell: Tell, keep_secret: KeepSecret, total: int) -> None:
        self._api = api
        self._new_id = new_id
        self._tell = tell
        self._keep_secret = keep_secret
        self._total = total
        self._made: dict[str, str] = {}  # monitors by their keys
        self._outcome = Outcome()
        self._hopeless: str | None = None

    def run(self, plan: Plan) -> Outcome:
        succeeded: set[int] = set()
        for step in plan.steps:
            if step.action is Action.REPLACE and self._attempt(step, self._make):
                succeeded.add(id(step))
            elif step.action in (Action.CREATE, Action.CHANGE) and self._attempt(step, self._make):
                self._finish(step)
        for step in plan.removals:
            if (step.action is Action.DELETE or id(step) in succeeded) and self._attempt(step, self._delete):
                self._finish(step)
        return self._outcome

    def _finish(self, step: Step, failure: Failure | None = None) -> None:
        if failure is None:
            self._outcome.done.append(step)
        else:
            self._outcome.failed.append(failure)
        self._tell(len(self._outcome.done) + len(self._outcome.failed), self._total, step, failure)

    def _attempt(self, step: Step, do: Callable[[Step], None]) -> bool:
        try:
            if self._hopeless:
                raise _NotTried(self._hopeless)
            do(step)
        except _NotTried as error:
            self._finish(step, Failure(step, ((0, str(error)),)))
        except Refused as error:
            if error.status == 401 or error.code in _HOPELESS:
                self._hopeless = f"Not tried, since the one before ended so: {error.detail}"
            self._finish(step, Failure(step, _reasons(step, error)))
        else:
            return True
        return False

    def _make(self, step: Step) -> None:
        body = self._with_ids(step.body)
        path = TRAITS[step.section].path
        if step.action is Action.CHANGE:
            assert step.found is not None, "what changes is there"
            self._api.change(f"{path}/{step.found.id}", body, step.found.version)
            return
        # Null says no more than nothing when something is made, and an older API may not know the member.
        draft = {name: value for name, value in body.items() if value is not None} | {"name": step.name}
        created = self._api.create(path, draft, str(self._new_id()))
        assert step.wanted is not None, "what is made stands in the file"
        self._made[step.wanted.key] = created["id"]
        if "secret" in created:
            self._keep_secret(step.name, created["secret"])

    def _delete(self, step: Step) -> None:
        assert step.found is not None, "what is deleted is there"
        try:
            self._api.delete(f"{TRAITS[step.section].path}/{step.found.id}", step.found.version)
        except Refused as error:
            if error.status != 404:  # somebody else deleted it
                raise

    def _with_ids(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: [self._id_of(each) for each in value] if isinstance(value, list) else value
            for name, value in body.items()
        }

    def _id_of(self, value: Any) -> Any:
        if not isinstance(value, Made):
            return value
        if value.key not in self._made:
            raise _NotTried(f"Not tried, since it needs the monitor {value.key}, which could not be made.")
        return self._made[value.key]


class _NotTried(Exception):
    """Something before it failed."""


def _reasons(step: Step, error: Refused) -> tuple[tuple[int, str], ...]:
    line = step.wanted.line if step.wanted else 0
    if error.status == 412 and error.code != "unsure":
        return ((line, "Somebody has changed it meanwhile. Apply again, and look at the new plan."),)
    if not error.fields:
        return ((line, error.detail),)
    return tuple(
        (_line_at(step, each.pointer), f"{each.pointer.lstrip('/').replace('/', '.')}: {each.detail}")
        for each in error.fields
    )


def _line_at(step: Step, pointer: str) -> int:
    return step.wanted.line_at(pointer) if step.wanted else 0
