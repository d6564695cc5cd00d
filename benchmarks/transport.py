"""What HTTP under supabase-py's query builder costs, and what the WSGI server above it costs.

    python -m benchmarks.transport             both tables, about four minutes
    python -m benchmarks.transport calls       table 1 alone; `servers` is table 2

Table 1 makes list calls from threads of one process on one core. Table 2 serves `peers/minimal_flask.py`, which
verifies nothing and logs nothing, from one process on one core. The choices they led to are in docs/decisions.md.
"""

import argparse
import importlib.util
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
from postgrest import SyncPostgrestClient
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.response import SyncResponse

from benchmarks import lab, measuring
from benchmarks.contestants import PUBLISHABLE_KEY, Contestant, Site
from server.data.clients import Supabase
from server.data.queries import compiled, table
from server.data.transport import UpstreamSession

THREADS = (1, 16, 64)
SECONDS = 2
ROUNDS = 3
WARM_CALLS = 20  # of each thread before the window opens: every connection is there by then

Call = Callable[[], object]


class LifoTransport(httpx.BaseTransport):
    """Connections on a stack, each in a transport of its own, so that httpcore has no pool to scan."""

    def __init__(self) -> None:
        self._idle: list[httpx.HTTPTransport] = []
        self._tls = ssl.create_default_context()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send over the connection that was used last."""
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = httpx.HTTPTransport(verify=self._tls, limits=httpx.Limits(max_connections=1))
        response = transport.handle_request(request)
        response.read()
        self._idle.append(transport)
        return response


class LightAnswer:
    """What the builder's `execute` reads of an answer."""

    def __init__(self, answer: SyncResponse, headers: httpx.Headers) -> None:
        self.status_code = answer.status
        self.content = bytes(answer.bytes())
        self.headers = answer.headers
        self.request = httpx.Request("GET", "http://stub", headers=headers)

    @property
    def is_success(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status_code < 300


class LightSession:
    """What the builder asks of a session, answered by pyreqwest."""

    auth = None

    def __init__(self, client: SyncClient) -> None:
        self._client = client

    def request(self, method: str, url: str, *, params: Any, headers: httpx.Headers, **rest: Any) -> LightAnswer:
        """Send one request without a body."""
        del rest
        request = self._client.request(method, f"{url}?{params}").headers(headers.multi_items())
        return LightAnswer(request.build().send(), headers)


def call_through(session: Any, url: str, token: str) -> Call:
    """Return a list call as supabase-py makes it: a client, a query, `execute`, anew for every call."""
    headers = {"apikey": PUBLISHABLE_KEY, "Authorization": f"Bearer {token}"}

    def call() -> object:
        client = SyncPostgrestClient(f"{url}/rest/v1", headers=headers, http_client=session, retry_enabled=False)
        query = client.from_("monitors").select("*").order("created_at", desc=True).order("id", desc=True).limit(51)
        return query.execute().data

    return call


def prepare_httpx(url: str, token: str) -> Call:
    """One shared httpx.Client."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    return call_through(httpx.Client(limits=limits), url, token)


def prepare_lifo(url: str, token: str) -> Call:
    """httpx.Client over a stack of one-connection transports."""
    return call_through(httpx.Client(transport=LifoTransport()), url, token)


def prepare_pyreqwest(url: str, token: str) -> Call:
    """pyreqwest as the builder's session."""
    client = SyncClientBuilder().no_proxy().follow_redirects(False).timeout(timedelta(seconds=5)).build()
    return call_through(LightSession(client), url, token)


def prepare_compiled(url: str, token: str) -> Call:
    """Ours: the builder puts the query together once, pyreqwest sends it, nothing is parsed."""
    supabase = Supabase(UpstreamSession(), url, PUBLISHABLE_KEY)
    query = compiled(table("monitors").select("*").order("created_at", desc=True).order("id", desc=True).limit(51))
    return lambda: supabase.as_user(token, "benchmark").execute(query)


SESSIONS: dict[str, tuple[str, Callable[[str, str], Call]]] = {
    "httpx": ("builder over httpx.Client, one shared pool", prepare_httpx),
    "lifo": ("builder over httpx, LIFO of one-connection transports", prepare_lifo),
    "pyreqwest": ("builder over pyreqwest", prepare_pyreqwest),
    "compiled": ("ours: builder once a query, pyreqwest, bytes unparsed", prepare_compiled),
}


def time_calls(call: Call, threads: int, seconds: float) -> dict[str, float]:
    """Call from `threads` threads for `seconds`; return CPU ms per call and calls per second."""
    counts = [0] * threads
    ended = threading.Event()

    def work(thread: int) -> None:
        while not ended.is_set():
            call()
            counts[thread] += 1

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 20
    while min(counts) < WARM_CALLS and time.monotonic() < deadline:
        time.sleep(0.01)
    calls, cpu, began = sum(counts), time.process_time(), time.monotonic()
    time.sleep(seconds)
    calls, cpu, took = sum(counts) - calls, time.process_time() - cpu, time.monotonic() - began
    ended.set()
    for worker in workers:
        worker.join()
    return {"cpu_ms": 1000 * cpu / calls, "per_second": calls / took}


def print_calls(stub: lab.Stub) -> None:
    """Print table 1; each figure comes from a process of its own, all rows taking turns."""
    stub.set(delay_ms=0)
    token = measuring.mint_tokens(measuring.issuer_of(stub), 1)[0]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for threads in THREADS:
            for name in SESSIONS:
                arguments = ["--session", name, "--threads", str(threads), "--url", stub.url, "--token", token]
                found.setdefault((name, threads), []).append(run_pinned(arguments))
    print(f"\nA list call, CPU ms (calls/s), by threads\n  {'':<56}" + "".join(f"{n:>17}" for n in THREADS))
    for name, (label, _) in SESSIONS.items():
        cells = []
        for threads in THREADS:
            cpu_ms, per_second = (
                statistics.median(sample[figure] for sample in found[name, threads])
                for figure in ("cpu_ms", "per_second")
            )
            cells.append(f"{cpu_ms:8.3f} ({per_second:6.0f})")
        print(f"  {label:<56}" + "".join(f"{cell:>17}" for cell in cells))


def run_pinned(arguments: list[str]) -> dict[str, float]:
    """Run this module on the test core and return the figures it prints."""
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "benchmarks.transport", *arguments]
        process = lab.start(command, lab.TEST_CORE, {}, lab.ROOT, output)
        try:
            code = process.popen.wait(60)
        finally:
            process.stop()
        output.seek(0)
        text = output.read().decode()
    if code:
        raise subprocess.CalledProcessError(code, command, text)
    figures: dict[str, float] = json.loads(text.splitlines()[-1])
    return figures


def serve_with(*arguments: str) -> Callable[[Site], list[str]]:
    """Return the command of a WSGI server for the minimal app; {port} in an argument is filled in."""

    def command(site: Site) -> list[str]:
        filled = [argument.format(port=site.port) for argument in arguments]
        return [sys.executable, "-m", *filled, "benchmarks.peers.minimal_flask:app"]

    return command


def granian(threads: int) -> Callable[[Site], list[str]]:
    """Return the command of granian with so many threads for Python."""
    return serve_with(
        *("granian", "--interface", "wsgi", "--http", "1", "--no-ws", "--no-log", "--port", "{port}"),
        *("--blocking-threads", str(threads)),
    )


def list_servers() -> list[Contestant]:
    """Return the servers of table 2 that are installed; waitress is not among the project's packages."""
    gthread = ("gunicorn", "--worker-class", "gthread", "--log-level", "error", "--bind", "127.0.0.1:{port}")
    servers = [
        *(Contestant(f"granian-{n}", f"granian, {n} threads", granian(n), verifies=False) for n in (8, 32, 64)),
        Contestant("gthread", "gunicorn gthread, 64 threads", serve_with(*gthread, "--threads", "64"), verifies=False),
    ]
    if importlib.util.find_spec("waitress"):
        waitress = serve_with("waitress", "--threads", "64", "--listen", "127.0.0.1:{port}")
        servers.append(Contestant("waitress", "waitress, 64 threads", waitress, verifies=False))
    return servers


def print_servers(stub: lab.Stub) -> None:
    """Print table 2."""
    settings = [measuring.Setting(delay, count) for delay in (0, 5) for count in (16, 64)]
    found: dict[tuple[str, measuring.Setting], list[measuring.Sample]] = {}
    user_tokens = measuring.mint_tokens(measuring.issuer_of(stub))
    servers = list_servers()
    with measuring.run_contestants(servers, stub) as running:
        for _ in range(ROUNDS):
            for setting in settings:
                for server in running:
                    sample = measuring.measure(server, stub, setting, SECONDS, user_tokens)
                    found.setdefault((server.contestant.name, setting), []).append(sample)
    head = "".join(f"{f'{s.delay_ms} ms, {s.connections} conns':>20}" for s in settings)
    print(f"\nA minimal Flask app, CPU ms a request (requests/s)\n  {'':<30}{head}")
    for contestant in servers:
        cells = ""
        for setting in settings:
            samples = found[contestant.name, setting]
            cpu_ms = statistics.median(sample.cpu_ms for sample in samples)
            per_second = statistics.median(sample.per_second for sample in samples)
            cells += f"{f'{cpu_ms:.3f} ({per_second:.0f})':>20}"
        print(f"  {contestant.label:<30}{cells}")


def main() -> None:
    """Print the tables, or be the process that one figure of table 1 comes from."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="calls, servers (default: both)")
    for hidden in ("--session", "--url", "--token"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.tables) - {"calls", "servers"}:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    if options.session:
        _, prepare = SESSIONS[options.session]
        print(json.dumps(time_calls(prepare(options.url, options.token), options.threads, SECONDS)))
        return
    try:
        with lab.run_stub() as stub:
            if "servers" not in options.tables or "calls" in options.tables:
                print_calls(stub)
            if "calls" not in options.tables or "servers" in options.tables:
                print_servers(stub)
    except lab.Missing as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
