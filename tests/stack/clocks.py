"""A clock that a test can set, for processes that start with it: libfaketime answers them what the time is."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# Debian's places: /usr/lib/<architecture>/faketime. The one for programs with threads holds a lock while it reads; one
# that asks for the time in a signal handler, as Postgres does, needs the one without.
_LIBRARIES = {False: "libfaketime.so.1", True: "libfaketimeMT.so.1"}


@dataclass(slots=True)
class SettableClock:
    """The time of day, so many hours ahead of what it is. How fast it runs, and clocks that only count, stay right."""

    file: Path
    hours: int = 0

    def jump(self, hours: int) -> None:
        """Be set so many hours forward, or back; whoever reads it reads the new time from now on."""
        self.hours += hours
        new = self.file.with_suffix(".new")
        new.write_text(f"{self.hours * 3600:+d}\n")
        new.replace(self.file)  # at once: nobody reads half of it

    def variables(self, *, threads: bool) -> dict[str, str]:
        """Return the environment in which a process lives by this clock. `threads`: whether it has more than one."""
        return {
            "LD_PRELOAD": str(_library(threads=threads)),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@contextmanager
def settable_clock() -> Iterator[SettableClock]:
    """Give a clock that is right until it is set; skips the test where libfaketime is not installed."""
    if _library(threads=True) is None:
        pytest.skip("libfaketime is not installed (Debian: apt-get install libfaketime)")
    folder = Path(tempfile.mkdtemp(prefix="tocsin-clock-"))
    folder.chmod(0o755)  # Postgres runs as somebody else
    try:
        clock = SettableClock(folder / "offset")
        clock.jump(0)
        yield clock
    finally:
        shutil.rmtree(folder)


def _library(*, threads: bool) -> Path | None:
    return next(Path("/usr/lib").glob(f"*/faketime/{_LIBRARIES[threads]}"), None)
