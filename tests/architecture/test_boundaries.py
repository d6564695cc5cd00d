"""The house's walls, where import-linter cannot see them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    "server/probes/hop.py",  # measures phases
    "server/probes/names.py",  # look-ups have a deadline
    "server/worker/__main__.py",  # hands the clocks to the worker's parts
    "server/worker/delivery/route.py",  # deliveries have a deadline
}
CLOCKS = re.compile(r"\b(datetime\.now|datetime\.utcnow|time\.time|time\.monotonic|time\.perf_counter|loop\.time)\b")


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted(SERVER.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text()


def imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_import_contracts_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_settings_reads_the_environment():
    readers = {name for name, source in sources() if re.search(r"os\.environ|getenv|dotenv", source)}
    # Both deal with PROMETHEUS_MULTIPROC_DIR alone, which is between prometheus_client's processes and no setting.
    assert readers - {"server/__main__.py", "server/http/metrics.py"} == {"server/settings.py"}


def test_only_the_edges_read_a_clock():
    assert {name for name, source in sources() if CLOCKS.search(source)} <= CLOCK_READERS


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


@pytest.mark.parametrize("feature", sorted(path.name for path in (SERVER / "features").iterdir() if path.is_dir()))
def test_a_feature_uses_of_another_its_rules_alone(feature):
    if feature == "__pycache__":
        return
    for path in (SERVER / "features" / feature).glob("*.py"):
        for name in imports(path.read_text()):
            other = re.match(r"server\.features\.(\w+)(?:\.(\w+))?", name)
            if other and other.group(1) != feature:
                assert other.group(2) in {None, "rules"}, f"{path.name} imports {name}"


def test_inside_a_feature_imports_point_from_routes_to_rules():
    order = [
        "rules",
        "store",
        "schemas",
        "routes",
    ]  # each may import those before it, except that schemas need no store
    for path in (SERVER / "features").glob("*/*.py"):
        if path.stem not in order:
            continue
        for name in imports(path.read_text()):
            inner = re.match(rf"server\.features\.{path.parent.name}\.(\w+)", name)
            if inner and inner.group(1) in order:
                assert order.index(inner.group(1)) < order.index(path.stem), f"{path} imports {name}"
                assert (path.stem, inner.group(1)) != ("schemas", "store")


def test_the_example_environment_names_each_setting_and_no_other():
    named = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    read = set(re.findall(r'read\.(?:required|optional)\(\s*"([A-Z_]+)"', (SERVER / "settings.py").read_text()))
    assert named == read
    assert set(ENVIRONMENT) <= read
    assert read_settings(ENVIRONMENT).port == 8000
