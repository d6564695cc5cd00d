"""How long things take, by a clock that nobody sets."""

import time


class Watch:
    """Runs from the moment it is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def seconds(self) -> float:
        """Return how long it has run."""
        return time.perf_counter() - self._began

    def ms(self) -> float:
        """Return how long it has run, in milliseconds."""
        return to_ms(self.seconds())


def to_ms(seconds: float) -> float:
    """Return seconds as milliseconds, to the microsecond."""
    return round(max(0.0, seconds) * 1000, 3)
