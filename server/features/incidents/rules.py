"""How an incident moves: open, acknowledged, resolved, and never back. Pure."""

from enum import StrEnum


class IncidentState(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


_FORWARD = {
    IncidentState.OPEN: {IncidentState.ACKNOWLEDGED, IncidentState.RESOLVED},
    IncidentState.ACKNOWLEDGED: {IncidentState.RESOLVED},
    IncidentState.RESOLVED: set[IncidentState](),
}


def may_move(now: IncidentState, to: IncidentState) -> bool:
    """Tell whether an incident may go from one state to another."""
    return to in _FORWARD[now]
