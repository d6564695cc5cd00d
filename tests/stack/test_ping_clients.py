"""What people have in their crontabs: curl as healthchecks.io/docs has it, and a client of theirs, but for the host."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.stack.conftest import EmbeddedSupabase
from tests.stack.heartbeats import Heart, heartbeat_store, judge_all, make_heartbeat
from tests.stack.product import Api
from tests.stack.sql import value
from tests.stack.test_pings import key, org_id

__all__ = ["key", "org_id"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def heart(connection: psycopg.Connection, org_id: str) -> Heart:
    return make_heartbeat(connection, org_id)


@pytest.fixture
def shell(quiet_api: Api, heart: Heart, tmp_path: Path) -> Run:
    """Run a script with PING_URL, as the documentation has it, and PING_ENDPOINT, which ends with a slash."""

    def run(script: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"],
            "PING_URL": quiet_api.url + heart.url,
            "PING_ENDPOINT": f"{quiet_api.url}/ping/",
            **more,
        }
        return subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        ("curl -m 10 --retry 5 $PING_URL", [("success", None, None)]),
        ("true && curl -fsS -m 10 --retry 5 -o /dev/null $PING_URL", [("success", None, None)]),
        ("curl -fsS --retry 3 -I $PING_URL", [("success", None, None)]),
        ("false\ncurl -m 10 --retry 5 $PING_URL/$?", [("fail", 1, None)]),
        ("(exit 137)\ncurl -m 10 --retry 5 $PING_URL/$?", [("fail", 137, None)]),
        ("true\ncurl -m 10 --retry 5 $PING_URL/$?", [("success", 0, None)]),
        (
            'm=$(echo "Congratulations, renewed & done" 2>&1)\ncurl -fsS -m 10 --retry 5 --data-raw "$m" $PING_URL',
            [("success", None, "Congratulations, renewed & done")],
        ),
        (
            'm=$(ls /nowhere/at/all 2>/dev/null; echo "no such folder"; exit 2); '
            'curl -fsS -X POST --data-raw "$m" "$PING_URL$([ $? -ne 0 ] && echo -n /fail)"',
            [("fail", None, "no such folder")],
        ),
        (
            "curl -fsS -m 10 --retry 5 $PING_URL/start\n"
            "curl -fsS -m 10 --retry 5 --data-raw 'Hello World' $PING_URL/log\n"
            "curl -fsS -m 10 --retry 5 $PING_URL",
            [("start", None, None), ("log", None, "Hello World"), ("success", None, None)],
        ),
    ],
)
def test_curl_as_it_is_documented_pings(shell: Run, heart: Heart, script, kept):
    done = shell(script)

    assert done.returncode == 0, done.stderr
    assert heart.pings("kind, exit_status, body") == kept


def test_curl_times_a_run_by_its_id(shell: Run, heart: Heart):
    done = shell(
        "RID=$(cat /proc/sys/kernel/random/uuid)\n"
        "curl -fsS -m 10 --retry 5 $PING_URL/start?rid=$RID\n"
        "curl -fsS -m 10 --retry 5 $PING_URL?rid=$RID\n"
    )

    assert (done.returncode, done.stdout) == (0, "OKOK")
    (start, end) = heart.pings("rid, duration_ms is not null")
    assert start[0] == end[0]
    assert (start[1], end[1]) == (False, True)


def test_curl_registers_a_machine_at_its_first_ping(shell: Run, key: str, connection: psycopg.Connection):
    script = "SLUG=web-1\nURL=$PING_ENDPOINT$PING_KEY/$SLUG?create=1\ncurl -m 10 --retry 5 $URL"

    assert [shell(script, PING_KEY=key).stdout for _ in range(2)] == ["Created", "OK"]
    assert (
        value(connection, "select count(*) from pings p join monitors m on m.id = monitor_id where slug = 'web-1'") == 2
    )


def test_curl_hears_of_what_is_not_there(shell: Run, key: str):
    done = shell("curl -fsS -m 10 $PING_ENDPOINT$PING_KEY/nothing", PING_KEY=key)

    assert (done.returncode, "404" in done.stderr) == (22, True)


JOB = """
from healthchecks_decorator import healthcheck

@healthcheck(url={url!r}, send_start=True, send_diagnostics=True)
def backup():
    {does}

backup()
"""


@pytest.mark.parametrize(
    ("does", "kept", "state"),
    [
        ("return {'rows': 120}", [("start", None), ("success", "rows=120")], "up"),
        ("raise SystemError('disk full')", [("start", None), ("fail", None)], "down"),
    ],
)
def test_a_client_of_healthchecks_works_with_another_host(
    quiet_api: Api, heart: Heart, own_supabase: EmbeddedSupabase, does, kept, state
):
    script = JOB.format(url=quiet_api.url + heart.url, does=does)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert ("disk full" in done.stderr) == (state == "down"), done.stderr
    with heartbeat_store(own_supabase) as store:
        judge_all(store)
    assert heart.pings("kind, body") == kept
    assert heart.state == state
