"""One contestant started, shown to answer rightly, and measured once under one load."""

import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import lab, tokens
from benchmarks.contestants import Contestant, Site

BODY_BYTES = range(1_500, 3_500)
USERS = 64
DRAIN_SECONDS = 20.0


class WrongAnswer(Exception):
    """A contestant does not do the work; its time would mean nothing."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant that has started and answers rightly. `body_bytes` is the size of its answer."""

    contestant: Contestant
    process: lab.Process
    url: str
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One load: how slow the upstream is, and how many connections ask."""

    delay_ms: int
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one contestant under one load.

    `cpu_ms` is CPU per request served; `core_share` how much of its core the contestant used, `others_share` how much
    all other programs of the machine took of it; `failed` counts statuses other than 2xx and socket errors.
    """

    cpu_ms: float
    per_second: float
    core_share: float
    others_share: float
    p50_ms: float
    p99_ms: float
    answered: int
    failed: int


def mint_tokens(issuer: str, count: int = USERS) -> list[str]:
    """Return tokens of `count` users, good for an hour."""
    now = datetime.now(UTC)
    return [tokens.mint(number, issuer, now) for number in range(count)]


@contextmanager
def run_contestants(contestants: Sequence[Contestant], stub: lab.Stub) -> Iterator[list[Running]]:
    """Run all of them for as long as the block runs; those that wait their turn use no CPU worth mentioning."""
    with ExitStack() as stack:
        yield [stack.enter_context(run_contestant(contestant, stub)) for contestant in contestants]


@contextmanager
def run_contestant(contestant: Contestant, stub: lab.Stub) -> Iterator[Running]:
    """Start one contestant on the test core, check its answers, warm it up.

    Raises WrongAnswer, RuntimeError, TimeoutError, Missing.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        site = Site(lab.choose_port(), stub.url, Path(name))
        log_path = site.directory / "output.log"
        environment = {**site.environment(), **contestant.environment}
        with log_path.open("wb") as log:
            process = lab.start(contestant.command(site), lab.TEST_CORE, environment, site.directory, log)
        try:
            lab.wait_until_listening(process, site.port)
            url = f"http://127.0.0.1:{site.port}/v1/monitors"
            body_bytes = check_answers(contestant, url, stub)
            stub.set(delay_ms=0)
            lab.load(url, 64, 1, mint_tokens(issuer_of(stub)))
            drain(process, stub)
            yield Running(contestant, process, url, body_bytes)
        except (RuntimeError, TimeoutError, WrongAnswer) as error:
            tail = log_path.read_text(errors="replace").strip().splitlines()[-15:]
            code = process.popen.poll()
            state = "still runs" if code is None else f"ended with {code}"
            error.add_note("\n".join([f"{contestant.name} {state}; it said last:", *tail]))
            raise
        finally:
            process.stop()


def issuer_of(stub: lab.Stub) -> str:
    """Return the issuer that the contestants expect."""
    return stub.url + tokens.ISSUER_PATH


def check_answers(contestant: Contestant, url: str, stub: lab.Stub) -> int:
    """See that an answer is a 200 of about 2 KB under the asker's own identity, and a forged token gets 401.

    Returns the size of the answer's body. Raises WrongAnswer.
    """
    stub.set(delay_ms=0, echo=True)
    user_tokens = mint_tokens(issuer_of(stub), 4)
    for number, token in [*enumerate(user_tokens), *enumerate(user_tokens)]:
        status, body = fetch(url, token)
        if status != 200:
            raise WrongAnswer(f"{contestant.name} answered {status} to a good token: {body[:300]!r}")
        answer = json.loads(body)
        rows = answer if isinstance(answer, list) else answer["data"]  # the bare proxy adds no envelope
        names = {row["name"] for row in rows}
        if names != {tokens.subject(number)}:
            raise WrongAnswer(f"{contestant.name} answered {names} where {tokens.subject(number)} asked")
    if len(body) not in BODY_BYTES:
        raise WrongAnswer(f"{contestant.name} answered {len(body)} bytes, about 2 KB are expected")
    head, payload, signature = user_tokens[0].split(".")
    forged = f"{head}.{payload}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"
    if contestant.verifies and fetch(url, forged)[0] != 401:
        raise WrongAnswer(f"{contestant.name} let a forged token in")
    return len(body)


def fetch(url: str, token: str) -> tuple[int, bytes]:
    """Return status and body of one GET."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def measure(running: Running, stub: lab.Stub, setting: Setting, seconds: int, user_tokens: Sequence[str]) -> Sample:
    """Load one contestant once.

    1. The window opens with CPU time and the stub's count of calls read together.
    2. wrk loads for `seconds`; its own count gives throughput and latency.
    3. What wrk left unfinished is served to its end, and counted: each request makes exactly one upstream call, so CPU
       and calls are of the same requests. Dividing by wrk's count would leave out up to `connections` requests, and a
       server of 20 requests a second has hardly more in a window.
    """
    stub.set(setting.delay_ms)
    listed_before, busy_before = stub.listed(), lab.read_busy_seconds(lab.TEST_CORE)
    cpu_before = running.process.cpu_seconds()
    seen = lab.load(running.url, setting.connections, seconds, user_tokens)
    cpu_in_window = running.process.cpu_seconds() - cpu_before
    others = lab.read_busy_seconds(lab.TEST_CORE) - busy_before - cpu_in_window
    drain(running.process, stub)
    served = stub.listed() - listed_before
    cpu_seconds = running.process.cpu_seconds() - cpu_before
    unfinished = served - seen.answered
    if not 0 <= unfinished <= setting.connections + seen.failed:
        raise WrongAnswer(f"{running.contestant.name}: {served} upstream calls for {seen.answered} answers")
    return Sample(
        cpu_ms=1000 * cpu_seconds / served,
        per_second=seen.answered / seen.seconds,
        core_share=cpu_in_window / seen.seconds,
        others_share=max(0.0, others / seen.seconds),
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        answered=seen.answered,
        failed=seen.failed,
    )


def drain(process: lab.Process, stub: lab.Stub) -> None:
    """Return once the contestant has nothing left to do: no call reached the stub and next to no CPU went in 100 ms."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline:
        cpu_before, listed_before = process.cpu_seconds(), stub.listed()
        time.sleep(0.1)
        if stub.listed() == listed_before and process.cpu_seconds() - cpu_before < 0.005:
            return
    raise TimeoutError(f"{process.popen.args!r} is still busy {DRAIN_SECONDS:.0f} s after the load has ended")
