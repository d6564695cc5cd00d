"""The embedded Supabase: REST and Auth on loopback over PGlite (development) or a real Postgres (tests).

`python stack.py serve` runs it in the foreground with settings from the environment; `python stack.py client COMMAND…`
turns into COMMAND as soon as it answers; `python stack.py reset` drops its data. Tests use `running_stack`.
"""

import argparse
import fcntl
import os
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

from child import Child
from node import HERE, NODE, InstallError, install_modules
from ports import HOST, is_taken

ROOT = HERE.parent.parent
MIGRATIONS_DIR = ROOT / "supabase" / "migrations"
LOCAL_DIR = ROOT / ".local"
DATA_DIR = LOCAL_DIR / "pgdata"
CLIENTS_LOCK = LOCAL_DIR / "clients.lock"
# Less than the 5 s after which honcho kills what has not ended.
CLIENTS_LEAVE_WITHIN_SECONDS = 4.0
DEFAULT_PORT = 54321


class StackError(Exception):
    """The stack cannot run; the message is one line for the person who started it."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What clients and servers authenticate with."""

    publishable_key: str
    secret_key: str = field(repr=False)
    jwt_secret: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> "Keys":
        """Read the keys that `make run` has put into the environment."""
        names = ("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_JWT_SECRET")
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise StackError(f"missing from the environment: {', '.join(missing)}")
        return cls(*(os.environ[name] for name in names))


@dataclass(frozen=True, slots=True)
class PgliteDir:
    """Postgres in WebAssembly with its data in a folder; one call at a time."""

    path: Path


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A real Postgres; the URL is a superuser's, of a database that is ours alone."""

    url: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that answers at `url`."""

    url: str
    keys: Keys
    server: Child


@contextmanager
def running_stack(
    database: PgliteDir | PostgresUrl,
    keys: Keys,
    *,
    port: int,
    log_path: Path,
    migrations_dir: Path = MIGRATIONS_DIR,
    timeout_seconds: float = 60,
) -> Iterator[Stack]:
    """Run the stack on 127.0.0.1:`port` until the block ends; yields once migrations are applied and it answers.

    1. Bring the npm packages to the lock file.
    2. Take the data folder's lock (PGlite has none, and two servers on one folder destroy it).
    3. Start the server, which migrates before it listens.
    4. Wait until REST and Auth both answer.
    """
    install_modules()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with _data_lock(database) as lock, _start_server(database, keys, port, log_path, migrations_dir, lock) as server:
        stack = Stack(f"http://{HOST}:{port}", keys, server)
        _await_ready(stack, timeout_seconds)
        yield stack


def lock_data(path: Path) -> IO[str]:
    """Take the lock of the PGlite folder `path`; held until the file is closed in every process that inherited it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_suffix(".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StackError(f"the embedded Supabase is already running on {path}") from None
    return lock


@contextmanager
def _data_lock(database: PgliteDir | PostgresUrl) -> Iterator[IO[str] | None]:
    if isinstance(database, PostgresUrl):
        yield None
        return
    with lock_data(database.path) as lock:
        yield lock


def _start_server(
    database: PgliteDir | PostgresUrl, keys: Keys, port: int, log_path: Path, migrations_dir: Path, lock: IO[str] | None
) -> Child:
    where = {"PGLITE_DIR": str(database.path)} if isinstance(database, PgliteDir) else {"DATABASE_URL": database.url}
    return Child.start(
        [NODE, HERE / "serve.mjs"],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "SUPABASE_PORT": str(port),
            "SUPABASE_PUBLISHABLE_KEY": keys.publishable_key,
            "SUPABASE_SECRET_KEY": keys.secret_key,
            "SUPABASE_JWT_SECRET": keys.jwt_secret,
            "MIGRATIONS_DIR": str(migrations_dir),
            "LITE_TELEMETRY": "0",
            "DO_NOT_TRACK": "1",
            **where,
        },
        cwd=HERE,
        log_path=log_path,
        # The server holds the lock too: it stays taken while a server lives that we could not stop.
        pass_fds=[lock.fileno()] if lock else [],
    )


def _await_ready(stack: Stack, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not answers(stack.url, stack.keys.publishable_key):
        if stack.server.exit_code() is not None:
            raise StackError(_reason_of_death(stack.server))
        if time.monotonic() > deadline:
            raise StackError(
                f"the embedded Supabase did not answer within {timeout_seconds:.0f} s: {stack.server.log_path}"
            )
        time.sleep(0.1)


def _reason_of_death(server: Child) -> str:
    lines = server.log_tail().splitlines()
    fatal = next((line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")), None)
    return fatal or f"the embedded Supabase stopped: {server.log_path}"


def answers(url: str, publishable_key: str) -> bool:
    """Tell whether REST and Auth at `url` both answer."""
    return all(_responds(f"{url}{path}", publishable_key) for path in ("/auth/v1/health", "/rest/v1/"))


def _responds(url: str, publishable_key: str) -> bool:
    request = urllib.request.Request(url, headers={"apikey": publishable_key})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status < 500)
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except OSError:
        return False


def _serve(port: int) -> NoReturn:
    """Serve in the foreground until SIGINT or SIGTERM ends us with 0, or the server dies."""
    if is_taken(port):
        raise StackError(f"port {port} is taken: stop what listens there, or set SUPABASE_PORT")
    signal.signal(signal.SIGINT, _exit_in_order)
    signal.signal(signal.SIGTERM, _exit_in_order)
    database = PgliteDir(DATA_DIR)
    with running_stack(database, Keys.from_environment(), port=port, log_path=LOCAL_DIR / "supabase.log") as stack:
        print(f"Supabase answers at {stack.url}; its log is {stack.server.log_path}", flush=True)
        try:
            while stack.server.exit_code() is None:
                time.sleep(0.1)
        except SystemExit:
            _await_last_client(CLIENTS_LEAVE_WITHIN_SECONDS)
            raise
        raise StackError(_reason_of_death(stack.server))


def _exit_in_order(_signum: int, _frame: object) -> None:
    # The with-blocks stop the server on the way out; a second signal must not interrupt them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _become_client(port: int, command: Sequence[str], timeout_seconds: float) -> NoReturn:
    """Wait until the stack answers, then turn into `command`, counted as a client for as long as it lives."""
    keys = Keys.from_environment()
    deadline = time.monotonic() + timeout_seconds
    while not answers(f"http://{HOST}:{port}", keys.publishable_key):
        if time.monotonic() > deadline:
            raise StackError(f"no Supabase answered on port {port} within {timeout_seconds:.0f} s")
        time.sleep(0.1)
    lock = CLIENTS_LOCK.open("w")
    fcntl.flock(lock, fcntl.LOCK_SH)
    os.set_inheritable(lock.fileno(), True)
    os.execvp(command[0], list(command))


def _await_last_client(timeout_seconds: float) -> None:
    """Return when no client is left: the worker writes down its last results while it ends."""
    deadline = time.monotonic() + timeout_seconds
    with CLIENTS_LOCK.open("w") as lock:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                return


def _reset() -> None:
    try:
        with lock_data(DATA_DIR):
            shutil.rmtree(DATA_DIR, ignore_errors=True)
    except StackError:
        raise StackError("the embedded Supabase is running: end `make run` first") from None
    print("The embedded data are gone; `make run` starts afresh.")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["serve", "client", "reset"])
    parser.add_argument("client_command", nargs=argparse.REMAINDER, metavar="COMMAND")
    arguments = parser.parse_args()
    try:
        if arguments.command == "reset":
            _reset()
        elif arguments.command == "client":
            _become_client(_port(), arguments.client_command, timeout_seconds=120)
        else:
            _serve(_port())
    except (StackError, InstallError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def _port() -> int:
    return int(os.environ.get("SUPABASE_PORT") or DEFAULT_PORT)


if __name__ == "__main__":
    sys.exit(main())
