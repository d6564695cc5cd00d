"""What streams cost: `python -m benchmarks.streams` prints every figure with its target.

One stream process has one core to itself, and 5,000 readers on the other one hold a stream each. Then the API serves
ordinary reads from the first core too, with the 5,000 streams open beside it and without, in turn: figures are medians,
ratios medians of each round's own ratio.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import lab, measuring
from benchmarks.contestants import OURS, Site
from benchmarks.identity import find_contestant
from benchmarks.report import Verdict, print_verdicts

STREAMS = 5_000
STREAMS_PER_USER = 20
OPENED_AT_ONCE = 100
EVENTS = 5
READ_CONNECTIONS = 4
BROADCAST_TARGET_SECONDS = 2.0
READ_TARGET = 1.2
PATIENCE_SECONDS = 60.0


class Tally:
    """What all readers together have got: those who are ready, and those who have heard the event of now."""

    def __init__(self) -> None:
        self.ready = 0
        self.heard = 0
        self.lost = 0
        self.last_at = 0.0


class Reader(asyncio.Protocol):
    """One stream, as cheap as can be: it counts what comes and keeps nothing."""

    def __init__(self, tally: Tally, token: str) -> None:
        self.tally = tally
        self.token = token
        self.transport: asyncio.Transport | None = None
        self.closes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        request = f"GET /v1/events/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        self.transport.write(request.encode())

    def data_received(self, data: bytes) -> None:
        """Count: an event of this size comes in one piece."""
        if b"event: ready" in data:
            self.tally.ready += 1
        if b"event: monitor.down" in data:
            self.tally.heard += 1
            self.tally.last_at = time.perf_counter()

    def connection_lost(self, error: Exception | None) -> None:
        """Count who was cut off."""
        self.tally.lost += not self.closes

    def close(self) -> None:
        """Leave."""
        self.closes = True
        if self.transport is not None:
            self.transport.abort()


@dataclass(frozen=True, slots=True)
class StreamProcess:
    """A running stream process."""

    process: lab.Process
    port: int

    def memory_kb(self) -> int:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.popen.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@contextmanager
def run_streams(stub: lab.Stub) -> Iterator[StreamProcess]:
    """Run a stream process as it is deployed, on the test core."""
    port = lab.choose_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        environment = {
            **Site(lab.choose_port(), stub.url, Path(folder)).environment(),
            "STREAMS_PORT": str(port),
            "RATE_LIMITS": "connect=1000000000/day",  # counted, and never reached
        }
        with (Path(folder) / "output.log").open("wb") as log:
            command = [sys.executable, "-m", "server.streams"]
            process = lab.start(command, lab.TEST_CORE, environment, Path(folder), log)
        try:
            lab.wait_until_listening(process, port)
            time.sleep(1)  # the feed begins
            yield StreamProcess(process, port)
        finally:
            process.stop()


async def until(ask: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while not ask():
        if time.perf_counter() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.01)


async def open_streams(port: int, tally: Tally, tokens: Sequence[str], count: int) -> list[Reader]:
    """Open `count` streams, a hundred at a time, and return when each is ready."""
    loop = asyncio.get_running_loop()
    readers: list[Reader] = []
    begun = tally.ready
    while len(readers) < count:
        batch = [Reader(tally, tokens[number // STREAMS_PER_USER]) for number in range(len(readers), count)]
        batch = batch[:OPENED_AT_ONCE]
        readers += batch
        await asyncio.gather(*(loop.create_connection(partial(_same, reader), "127.0.0.1", port) for reader in batch))
        await until(partial(_are_ready, tally, begun + len(readers)), "streams that do not get ready")
    return readers


def _same(reader: Reader) -> Reader:
    return reader


def _are_ready(tally: Tally, count: int) -> bool:
    return tally.ready >= count


async def measure_broadcast(stub: lab.Stub, streams: StreamProcess, tally: Tally, count: int) -> tuple[float, float]:
    """Return how long one event takes to reach everybody, in seconds, and the CPU of one delivery, in µs: medians."""
    took, cpu = [], []
    for _ in range(EVENTS):
        tally.heard = 0
        cpu_began, began = streams.process.cpu_seconds(), time.perf_counter()
        await asyncio.to_thread(stub.emit)
        await until(lambda: tally.heard >= count, "readers that hear nothing")
        took.append(tally.last_at - began)
        cpu.append((streams.process.cpu_seconds() - cpu_began) / count * 1e6)
        await asyncio.sleep(0.2)
    return statistics.median(took), statistics.median(cpu)


async def measure_reads(
    streams: StreamProcess, api: measuring.Running, tally: Tally, tokens: Sequence[str], options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Return the p99 of ordinary reads, in ms, with and without the streams: one of each a round."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for number in range(options.rounds):
        for with_streams in (True, False) if number % 2 else (False, True):
            readers = await open_streams(streams.port, tally, tokens, options.streams) if with_streams else []
            await asyncio.sleep(1)
            load = await asyncio.to_thread(lab.load, api.url, READ_CONNECTIONS, options.seconds, tokens[:64])
            found[with_streams].append(load.p99_ms)
            for reader in readers:
                reader.close()
            await asyncio.sleep(1)
    return found[True], found[False]


async def run(options: argparse.Namespace) -> list[Verdict]:
    """Measure everything."""
    lab.find_program("wrk", "apt-get install wrk")
    count = options.streams
    tally = Tally()
    verdicts = []
    with lab.run_stub() as stub:
        tokens = measuring.mint_tokens(measuring.issuer_of(stub), count // STREAMS_PER_USER + 64)
        with run_streams(stub) as streams:
            before_kb = streams.memory_kb()
            began = time.perf_counter()
            readers = await open_streams(streams.port, tally, tokens, count)
            opened_seconds = time.perf_counter() - began
            each_kb = (streams.memory_kb() - before_kb) / count
            took, cpu = await measure_broadcast(stub, streams, tally, count)
            print(
                f"{count} streams on one core: opened in {opened_seconds:.1f} s, {each_kb:.1f} KB each beside the"
                f" {before_kb / 1024:.0f} MB of the process; {cpu:.0f} µs of CPU a delivery; {tally.lost} lost"
            )
            verdicts.append(Verdict(f"memory of a stream, {count} open", f"{each_kb:.1f} KB", "printed", met=True))
            what = f"one event to {count} streams, the poll's pause included"
            most = BROADCAST_TARGET_SECONDS
            verdicts.append(Verdict(what, f"{took:.2f} s", f"<= {most:g} s", took <= most))
            for reader in readers:
                reader.close()
            await asyncio.sleep(1)
            # Asked for here and not above: the API's start would take memory and time from the streams.
            running = measuring.run_contestant(find_contestant(OURS), stub)
            api = await asyncio.to_thread(running.__enter__)
            try:
                beside, alone = await measure_reads(streams, api, tally, tokens, options)
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)
    ratio = statistics.median(one / other for one, other in zip(beside, alone, strict=True))
    print(
        f"p99 of a read at {READ_CONNECTIONS} connections: {statistics.median(beside):.2f} ms beside {count} streams on"
        f" the same core, {statistics.median(alone):.2f} ms without"
    )
    what = f"p99 of a read with {count} idle streams / without"
    verdicts.append(Verdict(what, f"{ratio:.2f}x", f"<= {READ_TARGET:g}x", ratio <= READ_TARGET))
    verdicts.append(Verdict("streams that were cut off", str(tally.lost), "0", tally.lost == 0))
    return verdicts


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--rounds", type=int, default=5, help="of reads with and without (default 5)")
    parser.add_argument("--seconds", type=int, default=4, help="of reads in each (default 4)")
    return parser.parse_args(arguments)


def main() -> None:
    """Run from the command line; exits 1 where a target was missed, 2 where something is not installed."""
    options = read_options(sys.argv[1:])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {lab.LOAD_CORE})
    try:
        verdicts = uvloop.run(run(options))
    except lab.Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(2)
    print("\nTargets of the streams")
    print_verdicts(verdicts)
    sys.exit(any(not verdict.met for verdict in verdicts))


if __name__ == "__main__":
    main()
