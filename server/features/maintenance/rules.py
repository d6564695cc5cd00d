"""Whom a maintenance window covers, and what of a change moves its occurrences. Pure."""

from collections.abc import Collection

# A change of anything else leaves what goes on, and what lies ahead, as it is.
MOVING = frozenset({"starts_at", "ends_at", "time_zone", "recurrence", "all_monitors", "monitor_ids"})


def moves_occurrences(changed: Collection[str]) -> bool:
    """Tell whether a change of these fields moves occurrences, so that they are written anew."""
    return not MOVING.isdisjoint(changed)


def fault_of_scope(all_monitors: bool, monitor_count: int) -> str | None:
    """Return what is wrong with whom a window covers; None where nothing is."""
    if all_monitors and monitor_count:
        return "Name monitors or say all_monitors, not both."
    if not all_monitors and not monitor_count:
        return "Name at least one monitor, or say all_monitors."
    return None
