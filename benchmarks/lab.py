"""Processes under measurement: start one pinned to a core, read what it costs, load it with wrk, stop it whole.

The process under test has one core to itself, threads and children included; everything else has the other.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
_CORES = sorted(os.sched_getaffinity(0))
TEST_CORE, LOAD_CORE = _CORES[0], _CORES[-1]


class Missing(Exception):
    """Something this machine lacks; the message says in one line what and how to get it."""


def find_program(name: str, remedy: str) -> str:
    """Return the path of a program, this interpreter's own folder first, or raise Missing with its remedy."""
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/local/sbin:/usr/sbin")
    path = shutil.which(name, path=os.pathsep.join(places))
    if path is None:
        raise Missing(f"{name} is not installed: {remedy}")
    return path


def choose_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Process:
    """A running program that leads a process group of its own."""

    popen: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """Return the user and system time of the whole tree so far: all threads, the ended ones too."""
        return sum(read_cpu_seconds(pid) for pid in walk_tree(self.popen.pid))

    def stop(self) -> None:
        """End the group: politely, then after 5 s not."""
        for request in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, request)
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return


def walk_tree(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it; those that have ended are left out."""
    yield pid
    try:
        children = [
            child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield from walk_tree(int(child))


def read_cpu_seconds(pid: int) -> float:
    """Return what a process has used so far, to the nanosecond; 0 once it has ended.

    The clock id is clock_getcpuclockid(3)'s for another process. It is the figure of /proc/<pid>/stat without that
    one's rounding to 10 ms, which is too coarse for nginx in a window of two seconds.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def read_busy_seconds(core: int) -> float:
    """Return how long a core has been busy with anything so far, in steps of 10 ms (proc(5), /proc/stat)."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, irq, softirq, *_ = map(int, line.split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def start(
    command: Sequence[str], core: int, environment: Mapping[str, str], directory: Path, log: IO[bytes] | int
) -> Process:
    """Start a program on one core, in a process group of its own, all its output going to `log`.

    It sees the project's packages and no more of our environment than PATH and HOME.
    """
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {**inherited, "PYTHONPATH": str(ROOT), **environment}
    popen = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  # no threads here yet
    )
    return Process(popen)


def wait_until_listening(process: Process, port: int, timeout_seconds: float = 20.0) -> None:
    """Return once the port accepts; raise TimeoutError or RuntimeError where it never will."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            raise RuntimeError(f"{process.popen.args!r} ended with {process.popen.returncode} before it listened")
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"{process.popen.args!r} does not listen on {port}")


@dataclass(frozen=True, slots=True)
class Stub:
    """The stub upstream, seen from the benchmark."""

    process: Process
    url: str

    def set(self, delay_ms: float, echo: bool = False, rows: int = 4) -> None:
        """Choose how later list answers behave."""
        self._call(f"?delay_ms={delay_ms}&echo={int(echo)}&rows={rows}")

    def emit(self) -> None:
        """Let one event happen."""
        self._call("?emit=1")

    def listed(self) -> int:
        """Return how many list answers were given since the start."""
        return int(self._call("")["listed"])

    def _call(self, query: str) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/stub{query}", method="PUT")
        with urllib.request.urlopen(request, timeout=5) as answer:
            counters: dict[str, Any] = json.load(answer)
        return counters


@contextmanager
def run_stub() -> Iterator[Stub]:
    """Run the stub upstream on the load core for as long as the block runs."""
    port = choose_port()
    command = [sys.executable, "-m", "benchmarks.stub_upstream", "--port", str(port)]
    process = start(command, LOAD_CORE, {}, ROOT, subprocess.DEVNULL)
    try:
        wait_until_listening(process, port)
        yield Stub(process, f"http://127.0.0.1:{port}")
    finally:
        process.stop()


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: requests answered with a status below 400, those that were not, and the time it took."""

    answered: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float


def load(
    url: str,
    connections: int,
    seconds: int,
    tokens: Sequence[str],
    timeout_seconds: int = 20,
    if_none_match: str | None = None,
) -> Load:
    """Keep `connections` busy with GETs of `url`, the tokens in turn, from the load core."""
    wrk = find_program("wrk", "apt-get install wrk")
    script = str(ROOT / "benchmarks" / "wrk_tokens.lua")
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={timeout_seconds}s", "-s", script, url]
    environment = {**os.environ, "BENCH_TOKENS": "\n".join(tokens), "BENCH_IF_NONE_MATCH": if_none_match or ""}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    if done.returncode:
        raise RuntimeError(f"wrk: {(done.stderr or done.stdout).strip()} ({url})")
    summary = json.loads(done.stdout.splitlines()[-1])
    return Load(
        answered=summary["requests"] - summary["status_errors"],
        failed=summary["status_errors"] + summary["socket_errors"],
        seconds=summary["duration_us"] / 1e6,
        p50_ms=summary["p50_us"] / 1000,
        p99_ms=summary["p99_us"] / 1000,
    )
