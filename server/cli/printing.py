"""Plans and results for people to read. What came from elsewhere is printed so that no terminal obeys it."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from server.cli.applying import Failure, Outcome
from server.cli.documents import Path, Problem
from server.cli.planning import Action, Change, Plan, Step
from server.cli.resources import TRAITS

_SIGNS = {Action.CREATE: "+", Action.CHANGE: "~", Action.REPLACE: "-/+", Action.DELETE: "-"}
_DONE = {Action.CREATE: "created", Action.CHANGE: "changed", Action.REPLACE: "replaced", Action.DELETE: "deleted"}
_LONGEST = 160
_HIDDEN = "(hidden)"


def describe_plan(plan: Plan) -> str:
    """Describe each step with its values, and count them."""
    lines = [line for step in plan.steps for line in (*_describe_step(step), "")]
    lines += [
        f"    {TRAITS[each.section].noun} {visible(each.name)} is not in the file, and is kept" for each in plan.kept
    ]
    lines += [""] if plan.kept else []
    return "\n".join([*lines, _sum_up(plan)])


def _sum_up(plan: Plan) -> str:
    counts = Counter(step.action for step in plan.steps)
    parts = [f"{counts[action]} to {action}" for action in Action if counts[action]]
    same = f"{plan.unchanged} {'stays as it is' if plan.unchanged == 1 else 'stay as they are'}"
    return f"Plan: {', '.join([*parts, same])}." if parts else f"Nothing to do: {same}."


def _describe_step(step: Step) -> Iterable[str]:
    noun, key = TRAITS[step.section].noun, f" ({step.wanted.key})" if step.wanted else ""
    yield f"{_SIGNS[step.action]:>3} {step.action} {noun} {visible(step.name)}{key}"
    if step.action is Action.REPLACE:
        yield f"      This cannot be changed: a new one is made, the old one deleted with {TRAITS[step.section].loss}."
    if step.action is Action.DELETE:
        yield f"      With {TRAITS[step.section].loss}."
    creates = step.action is Action.CREATE
    changes = [change for change in step.changes if not creates or change.after not in (None, [], "")]
    width = max((len(_path(change.path)) for change in changes), default=0) + 1
    for change in changes:
        yield f"      {_path(change.path) + ':':<{width}} {_after(change) if creates else _both(change)}"


def _path(path: Path) -> str:
    return ".".join(map(str, path))


def _after(change: Change) -> str:
    return _HIDDEN if change.hidden else visible(change.after)


def _both(change: Change) -> str:
    if change.hidden:
        return f"{_HIDDEN} ► {_HIDDEN}"
    return f"{visible(change.before)} ► {visible(change.after)}"


def visible(value: Any) -> str:
    """Return a value as JSON, cut where it is long, without anything that a terminal would obey."""
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def describe_progress(number: int, total: int, step: Step, failure: Failure | None) -> str:
    """Say what became of one step."""
    noun = TRAITS[step.section].noun
    what = "FAILED" if failure else _DONE[step.action]
    return f"[{number:>{len(str(total))}}/{total}] {noun} {visible(step.name)} {what}"


def describe_failures(file_name: str, outcome: Outcome) -> str:
    """Say of each step that was not done why, with the line of the file."""
    lines = []
    for failure in outcome.failed:
        subject = f"{failure.step.action} {TRAITS[failure.step.section].noun} {visible(failure.step.name)}"
        lines += [describe_problem(file_name, Problem(line, f"{subject}: {words}")) for line, words in failure.reasons]
    return "\n".join(lines)


def describe_outcome(outcome: Outcome) -> str:
    """Count what was done and what not."""
    counts = Counter(step.action for step in outcome.done)
    done = ", ".join(f"{counts[action]} {_DONE[action]}" for action in Action if counts[action]) or "nothing was done"
    return f"Done: {done}." + (f" NOT done: {len(outcome.failed)}." if outcome.failed else "")


def describe_problem(file_name: str, problem: Problem) -> str:
    """Say what is wrong, and where: as compilers do, so that editors find the place."""
    detail = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in problem.detail)
    return f"{file_name}:{problem.line}: {detail}" if problem.line else f"{file_name}: {detail}"
