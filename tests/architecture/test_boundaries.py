"""The house's walls, where import-linter cannot see them."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.http.routing import Feature
from server.settings import read_settings
from tests.http.conftest import ENVIRONMENT

ROOT = Path(__file__).parent.parent.parent
SERVER = ROOT / "server"

# Whoever reads a clock, and why it may: everything else is told the time.
CLOCK_READERS = {
    "server/app.py",  # hands the monotonic clock to the key snapshot
    "server/data/jwks.py",  # its fetch has a deadline
    "server/features/health/routes.py",  # measures latencies
    "server/features/keys/routes.py",  # a key may not end before now
    "server/features/maintenance/routes.py",  # what is over is no maintenance any more
    "server/features/monitors/routes.py",  # a preview begins now
    "server/features/reports/routes.py",  # the last month is the one before now
    "server/features/series/routes.py",  # and so does this one
    "server/features/uptime/routes.py",  # a window without an end ends now
    "server/http/envelope.py",  # measures durations
    "server/http/principals.py",  # a token is checked now
    "server/logs.py",  # stamps lines
    "server/streams/app.py",  # hands the monotonic clock to the key snapshot
    "server/streams/envelope.py",  # measures durations
    "server/streams/sse.py",  # a token runs out some time from now
    "server/streams/websocket.py",  # and so does its successor
    "server/probes/timing.py",  # measures how long a target takes
    "server/worker/__main__.py",  # hands the clocks to the worker's parts
    "server/worker/delivery/route.py",  # deliveries have a deadline
}
CLOCKS = re.compile(
    r"datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today"
    r"|time\.(time|monotonic|perf_counter|clock_gettime|gmtime|localtime)(_ns)?|.*loop(\(\))?\.time"
)
ENVIRONMENT_READERS = re.compile(r"os\.(environb?|getenvb?)|dotenv\.\w+")


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(SERVER.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text()


def names_used(source: str) -> set[str]:
    """Return the dotted names that a module imports or speaks of, as they are without its aliases."""
    tree = ast.parse(source)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def dotted(node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{dotted(node.value)}.{node.attr}"
        return f"{dotted(node.func)}()" if isinstance(node, ast.Call) else ""

    # What a command sets for the processes that it starts is no reading.
    set_only = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    spoken = {dotted(node) for node in ast.walk(tree) if id(node) not in set_only}
    return spoken | set(aliases.values())


def modules_that_use(names: re.Pattern[str]) -> set[str]:
    return {name for name, source in sources() if any(names.fullmatch(used) for used in names_used(source))}


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("import os\nos.environ['A']", True),
        ("import os as o\no.environ.get('A')", True),
        ("from os import environ as e", True),
        ("from os import getenv", True),
        ("import dotenv as d\nd.dotenv_values()", True),
        ("import os\nos.environ['A'] = 'b'", False),
        ("environ = {}\nenviron['os.environ']", False),
    ],
)
def test_a_reader_of_the_environment_is_seen_whatever_it_calls_it(source, reads):
    assert any(ENVIRONMENT_READERS.fullmatch(name) for name in names_used(source)) == reads


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("import time as t\nt.time()", True),
        ("from time import monotonic", True),
        ("import datetime as d\nd.datetime.now(d.UTC)", True),
        ("from datetime import datetime as d\nclock = d.now", True),
        ("import asyncio\nasyncio.get_running_loop().time()", True),
        ("loop.time()", True),
        ("from datetime import datetime\ndatetime.fromisoformat(x).time()", False),
        ("import time\ntime.sleep(1)", False),
    ],
)
def test_a_reader_of_a_clock_is_seen_whatever_it_calls_it(source, reads):
    assert any(CLOCKS.fullmatch(name) for name in names_used(source)) == reads


def test_the_import_contracts_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_settings_reads_the_environment():
    assert modules_that_use(ENVIRONMENT_READERS) == {"server/settings.py"}


def test_only_the_edges_read_a_clock():
    assert modules_that_use(CLOCKS) == CLOCK_READERS


def test_only_the_roots_of_the_processes_read_the_secret_key_and_they_hand_it_to_its_holder():
    users = {name for name, source in sources() if "supabase_secret_key" in source}
    assert users == {
        "server/settings.py",
        "server/streams/app.py",
        "server/worker/__main__.py",
        "server/app.py",
    }
    holders = modules_that_use(re.compile(r"server\.data\.privileged(\..*)?"))
    assert holders == {
        "server/app.py",  # to derive secrets that a repeated request shows again; it opens nothing
        "server/streams/app.py",
        "server/streams/entrance.py",
        "server/worker/__main__.py",
        "server/worker/heartbeats.py",
        "server/worker/store.py",
        "server/worker/upkeep.py",
    }


def test_packages_import_nothing_by_themselves():
    assert [name for name, source in sources() if name.endswith("__init__.py") and source.strip()] == []


def test_the_worker_loads_no_flask_and_none_of_the_api():
    script = "import sys, server.worker.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "server.worker.checking" in loaded
    assert not {name for name in loaded if re.match(r"flask|werkzeug|granian|server\.(app|http)\b", name)}


def test_the_stream_process_loads_no_flask_and_no_routes():
    script = "import sys, server.streams.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "server.streams.hub" in loaded
    assert not {
        name for name in loaded if re.match(r"flask|werkzeug|granian|pycurl|server\.(app|egress|worker)\b", name)
    }
    assert not {name for name in loaded if re.match(r"server\.(features\..*|http)\.(routes|routing)$", name)}


@pytest.mark.parametrize("feature", sorted(path.parent.name for path in (SERVER / "features").glob("*/__init__.py")))
def test_each_feature_serves_routes_of_its_own(feature):
    found = importlib.import_module(f"server.features.{feature}.routes").feature
    assert isinstance(found, Feature)
    assert found.operations


def test_the_example_environment_names_each_setting_and_no_other():
    named = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read = set(re.findall(r'read\.(?:required|optional)\(\s*"([A-Z_]+)"', (SERVER / "settings.py").read_text()))
    assert named == read
    assert set(ENVIRONMENT) <= read
    assert read_settings(ENVIRONMENT).port == 8000
