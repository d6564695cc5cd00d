"""The product as it runs: the API and the worker as processes of their own, and the world that they watch and tell."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import requests
from ports import free_port

from server.settings import RATE_LIMITS

ROOT = Path(__file__).parent.parent.parent
T = TypeVar("T")
# All tests come from one address, and some write faster than anybody. Limits have tests of their own.
UNLIMITED = ",".join(f"{name}=1000000000/day" for name in RATE_LIMITS)


@dataclass(slots=True)
class Api:
    """A client of a running API, as one user or as nobody."""

    url: str
    token: str | None = None

    def as_user(self, token: str) -> "Api":
        """Return the same API with this user's access token."""
        return Api(self.url, token)

    def send(self, method: str, path: str, **more: Any) -> requests.Response:
        """Send one request; `more` is what requests takes."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return requests.request(
            method, self.url + path, headers={**headers, **more.pop("headers", {})}, timeout=30, **more
        )

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Send one request that must succeed, and return its JSON."""
        answer = self.send(method, path, **more)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None


def environment(supabase: Any, **more: str) -> dict[str, str]:
    """Return the environment in which the product meets this Supabase, and nothing of the tester's own settings."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "SUPABASE_URL": supabase.url,
        "SUPABASE_PUBLISHABLE_KEY": supabase.publishable_key,
        "SUPABASE_SECRET_KEY": supabase.secret_key,
        "SUPABASE_JWT_SECRET": supabase.jwt_secret,
        "SUPABASE_JWT_ISSUER": "unchecked",
        "PRIVATE_TARGETS": "127.0.0.1/32",
        "WORKER_REFERENCES": "none",
        "CORS_ORIGINS": "https://app.example.com",
        "RATE_LIMITS": UNLIMITED,
        **more,
    }


@contextmanager
def process(module: str, env: dict[str, str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module` in a folder without a .env, and end it, whatever happened to it meanwhile."""
    with log_path.open("ab") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", module], cwd=log_path.parent, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait(5)


@contextmanager
def running_api(supabase: Any, folder: Path, **more: str) -> Iterator[Api]:
    """Run the API until it answers, and give a client of it."""
    port = free_port()
    env = environment(supabase, PORT=str(port), **more)
    with process("server", env, folder / "api.log") as running:
        api = Api(f"http://127.0.0.1:{port}")

        def is_up() -> bool:
            assert running.poll() is None, (folder / "api.log").read_text()
            try:
                return requests.get(f"{api.url}/readyz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        eventually(is_up, "the API does not get ready", within_seconds=30)
        yield api


@contextmanager
def running_worker(supabase: Any, folder: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker."""
    with process("server.worker", environment(supabase, **more), folder / "worker.log") as running:
        yield running


def eventually(ask: Callable[[], T], complaint: str, *, within_seconds: float = 20) -> T:
    """Ask again and again until the answer is true, and return it; complain when time is up."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{complaint} within {within_seconds:g} s"
        time.sleep(0.1)


@dataclass(slots=True)
class Target:
    """A website that can be stopped and started again at the same address."""

    port: int = field(default_factory=free_port)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it answers, when it does."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Answer 200 to everything."""

        class Fine(_Quiet):
            def do_GET(self) -> None:
                self.answer(200, b"fine")

        self._server = _serve(Fine, self.port)

    def stop(self) -> None:
        """Refuse connections."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class Website:
    """A website with many pages. It counts visits, and answers as `statuses` say of a page: 200 where they say nothing.

    `seconds` is how long an answer takes. While it is held, no visit is answered. `host` is an address of this machine.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.visits: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.statuses: dict[str, int] = {}
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        outer = self

        class Page(_Quiet):
            def do_GET(self) -> None:
                with outer._lock:
                    outer.visits[self.path] += 1
                outer._open.wait(60)
                time.sleep(outer.seconds)
                with contextlib.suppress(OSError):  # the visitor may be dead by now
                    self.answer(outer.statuses.get(self.path, 200), b"")
                    with outer._lock:
                        outer.answered[self.path] += 1

        self._host = host
        self._server = _serve(Page, free_port(), host)

    @property
    def url(self) -> str:
        """Where it answers, without a page."""
        return f"http://{self._host}:{self._server.server_address[1]}"

    def hold(self) -> None:
        """Answer nobody until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Answer everybody who waits."""
        self._open.set()

    def close(self) -> None:
        """Stop answering."""
        self.release()
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class Received:
    """A webhook as it came in."""

    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The JSON in it."""
        message: dict[str, Any] = json.loads(self.body)
        return message


class Receiver:
    """Somebody's webhook endpoint. `statuses` is what it answers, in turn; then 200."""

    def __init__(self, statuses: list[int] | None = None) -> None:
        self.received: list[Received] = []
        self._statuses = statuses or []
        self._lock = threading.Lock()
        outer = self

        class Endpoint(_Quiet):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # the sender was killed in the middle of it: nothing was received
                with outer._lock:
                    outer.received.append(Received({k.lower(): v for k, v in self.headers.items()}, body))
                    status = outer._statuses.pop(0) if outer._statuses else 200
                self.answer(status, b"")

        self._server = _serve(Endpoint, free_port())

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def of_type(self, message_type: str) -> list[Received]:
        """Return what has come in of one type."""
        with self._lock:
            return [each for each in self.received if each.message["type"] == message_type]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that http.server calls
        return


def _serve(handler: type[BaseHTTPRequestHandler], port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((host, port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
