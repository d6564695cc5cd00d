"""What an organisation's uptime is, over all its monitors. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from server.features.uptime.rules import ratios_of


class Share(NamedTuple):
    """Both floored at six digits; None where there is nothing to divide by. Their meaning is that of `uptime/rules`."""

    uptime_ratio: float | None
    coverage_ratio: float | None


def share_of(spent: Mapping[str, int]) -> Share:
    """Return what the time that monitors spent in each state comes to; the unit is any. A pause counts as neither."""
    states = ("up", "degraded", "down", "unknown")
    return Share(*ratios_of(*(spent.get(state, 0) for state in states)))
