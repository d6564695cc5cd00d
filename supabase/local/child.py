"""A child process that cannot outlive us: it ends when we stop it, when we exit, and when we are killed."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

# The guard holds the reading end of a pipe whose writing end only we hold. However we end, the kernel closes it, the
# guard wakes and sends the signal. PR_SET_PDEATHSIG was rejected: Linux only, and bound to the starting thread.
_GUARD = """
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
{ read -r _ <&3; kill -s "$GUARD_SIGNAL" "$child"; } >/dev/null 2>&1 &
reader=$!
exec 3<&-
wait "$child"
status=$?
kill "$reader" 2>/dev/null
exit "$status"
"""


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group a child runs as."""

    uid: int
    gid: int


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only us and we end it in order."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self._process = process
        self.log_path = log_path

    @classmethod
    def start(
        cls,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_path: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        account: Account | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Self:
        """Start `argv`, its output going to `log_path`, as `account` (None: as ourselves)."""
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", *map(str, argv)],
                env={**env, "GUARD_SIGNAL": stop_signal.name.removeprefix("SIG")},
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        return cls(process, log_path)

    def exit_code(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.poll()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines it has printed."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, timeout_seconds: float = 10) -> None:
        """End it with its stop signal, and its whole session with SIGKILL when it takes longer than the timeout."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Self:
        """Return itself; it is stopped at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
