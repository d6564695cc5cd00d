"""The house's walls, where import-linter cannot see them."""

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
    "server/features/monitors/routes.py",  # a preview begins now
    "server/features/uptime/routes.py",  # a window without an end ends now
    "server/http/envelope.py",  # measures durations
    "server/http/routing.py",  # a token is checked now
    "server/logs.py",  # stamps lines
    "server/probes/names.py",  # look-ups have a deadline
    "server/worker/__main__.py",  # hands the clocks to the worker's parts
    "server/worker/delivery/route.py",  # deliveries have a deadline
}
CLOCKS = re.compile(
    r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|monotonic|perf_counter)(_ns)?|loop(\(\))?\.time)\b"
    r"|from time import"  # whoever reads a clock says `time.` where it does
)


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(SERVER.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text()


def test_the_import_contracts_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_settings_reads_the_environment():
    # What a command sets for the processes that it starts is no reading.
    setting = re.compile(r'os\.environ\["[A-Z_]+"\] = ')
    readers = {name for name, source in sources() if re.search(r"os\.environ|getenv|dotenv", setting.sub("", source))}
    assert readers == {"server/settings.py"}
    assert {name for name, source in sources() if setting.search(source)} == {"server/__main__.py"}


def test_only_the_edges_read_a_clock():
    assert {name for name, source in sources() if CLOCKS.search(source)} == CLOCK_READERS


def test_the_secret_key_goes_to_the_worker_alone():
    users = {name for name, source in sources() if "supabase_secret_key" in source}
    assert users == {"server/settings.py", "server/worker/__main__.py"}
    holders = {name for name, source in sources() if "import Privileged" in source}
    assert holders == {"server/worker/__main__.py", "server/worker/store.py"}


def test_packages_import_nothing_by_themselves():
    assert [name for name, source in sources() if name.endswith("__init__.py") and source.strip()] == []


def test_the_worker_loads_no_flask_and_none_of_the_api():
    script = "import sys, server.worker.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "server.worker.checking" in loaded
    assert not {name for name in loaded if re.match(r"flask|werkzeug|granian|server\.(app|http)\b", name)}


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
