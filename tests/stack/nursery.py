"""Workers that are born in a moment, so that hundreds can be killed in a minute: a process that has everything imported
forks a real worker whenever it is asked for one. `python -m tests.stack.nursery` is that process.

It reads lines of JSON: a new worker's environment variables, which it answers with a process id; or a process id, which
it kills. It ends when nobody can ask any more, and its workers with it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.worker.__main__ import main


class Nursery:
    """Where workers come from."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def bear(self, variables: Mapping[str, str]) -> int:
        """Start a worker with these environment variables besides the nursery's own, and return its process id."""
        return int(self._ask(dict(variables)))

    def kill(self, worker: int) -> None:
        """End it by kill -9; it must have been alive until now."""
        assert self._ask(worker) == "killed", "the worker had ended by itself"

    def _ask(self, something: Any) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(something) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def running_nursery(env: Mapping[str, str], log_path: Path) -> Iterator[Nursery]:
    """Run one until the end of a `with` block, in a folder without a .env."""
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.nursery"],
            cwd=log_path.parent,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdin
    assert process.stdout
    try:
        yield Nursery(process)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
        process.stdout.close()


def _serve() -> None:
    alive: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, dict):
            answer: Any = _bear(request)
            alive.add(answer)
        else:
            answer = "killed" if _kill(request) else "dead"
            alive.discard(request)
        print(answer, flush=True)
    for pid in alive:
        _kill(pid)


def _bear(variables: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(variables)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what it prints is a log, and no answer of the nursery's
    try:
        main()
    finally:
        os._exit(1)


def _kill(pid: int) -> bool:
    """Kill a child of ours and bury it; the number was its own until now, whether it lived or not."""
    was_alive = os.waitpid(pid, os.WNOHANG) == (0, 0)
    if was_alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return was_alive


if __name__ == "__main__":
    _serve()
