"""A real Postgres 17 for one test session: in a temporary folder, on loopback, gone afterwards."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from child import Account, Child
from node import install_modules, postgres_package
from ports import free_port
from psycopg import sql

SUPERUSER = "supabase_admin"  # as on hosted Supabase, where `postgres` is no superuser
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    # The data are thrown away: durability would only cost time.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class PostgresError(Exception):
    """Postgres did not come up; the message says why."""


@contextmanager
def open_server(given_url: str | None) -> Iterator[str]:
    """Yield a superuser's URL of a server: the given one, or a throwaway one where that is None or empty."""
    if given_url:
        yield given_url
        return
    with throwaway_server() as url:
        yield url


@contextmanager
def open_database(server_url: str) -> Iterator[str]:
    """Yield a superuser's URL of an empty database on that server, and drop it afterwards."""
    name = f"tocsin_test_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def throwaway_server(variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a superuser's URL of a server of our own, which starts with these environment variables besides its own."""
    install_modules()
    package = postgres_package()
    if package is None:
        raise PostgresError("no Postgres is packaged for this machine: set TEST_DATABASE_URL to a superuser's URL")
    account = _unprivileged_account()
    root = Path(tempfile.mkdtemp(prefix="tocsin-postgres-"))
    try:
        programs = _programs(package, root, account)
        _init(programs, root, account)
        port = free_port()
        given = [f"{name}={value}" for name, value in (variables or {}).items()]
        options = [f"--{name}={value}" for name, value in {**_OPTIONS, "port": str(port)}.items()]
        with Child.start(
            # By `env`, so that whatever is preloaded is the server's alone, and ends in order with it.
            ["env", *given, programs / "bin" / "postgres", "-D", root / "data", *options],
            env=_environment(),
            cwd=root,
            log_path=root / "postgres.log",
            stop_signal=signal.SIGINT,  # "fast" shutdown: SIGTERM would wait for every client to leave
            account=account,
        ) as server:
            url = f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres"
            _await_answer(url, server, timeout_seconds=30)
            yield url
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _unprivileged_account() -> Account | None:
    """Return whom to run Postgres as: it refuses root, so root lends it to somebody who owns nothing."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise PostgresError("Postgres does not run as root, and there is neither a user `postgres` nor `nobody`")


def _programs(package: Path, root: Path, account: Account | None) -> Path:
    native = package / "native"
    if account is None:
        return native
    # Another user may not be able to read our checkout (think of /root): give it a copy of its own.
    copy = root / "native"
    shutil.copytree(native, copy, symlinks=True)
    os.chown(root, account.uid, account.gid)
    return copy


def _init(programs: Path, root: Path, account: Account | None) -> None:
    initdb = subprocess.run(
        [
            *(
                programs / "bin" / "initdb",
                "-D",
                root / "data",
                "--username",
                SUPERUSER,
                "--auth",
                "trust",
                "--no-sync",
            ),
            *("--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        ],
        cwd=root,
        env=_environment(),
        capture_output=True,
        text=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    if initdb.returncode != 0:
        raise PostgresError(f"initdb failed: {initdb.stderr.strip()}")


def _environment() -> dict[str, str]:
    # PG* variables of the caller would bend initdb and the server.
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _await_answer(url: str, server: Child, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if server.exit_code() is not None or time.monotonic() > deadline:
                raise PostgresError(f"Postgres did not come up: {error}\n{server.log_tail()}") from error
            time.sleep(0.05)
        else:
            return
