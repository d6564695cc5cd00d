"""Configuration as code against the API as it runs: a file applied, exported, applied again, and taken away."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack.product import ROOT, Api

FILE = """
x-often: &often {interval_seconds: 30, fail_threshold: 3}

channels:
  on-call: {name: On-call, url: "${ONCALL_URL}"}

monitors:
  gateway: {kind: icmp, target: gateway.example.com, options: {packets: 2}}
  api:
    <<: *often
    name: API
    target: https://example.com/healthz
    options:
      method: POST
      headers: {Accept: application/json, X-Trace: "$${TRACE}"}
      body: '{"query": "{ ok }"}'
      auth: {type: bearer, token: "${API_TOKEN}"}
    assertions: ["json $.queue.depth < 100", tls_days_left >= 14]
    depends_on: [gateway]
  cache:
    kind: tcp
    target: cache.example.com:6379
    options: {send: "PING\\r\\n"}
    assertions: ['received contains "PONG"']
  mail: {kind: tls, target: "mail.example.com:993", assertions: [tls_days_left > 21], paused: true}
  names: {kind: dns, target: example.com, options: {record_type: MX, resolver: 9.9.9.9}}
  backup: {kind: heartbeat, options: {cron: 30 2 * * *, timezone: Europe/Berlin, grace_seconds: 900}}

maintenance_windows:
  database:
    name: Database
    monitors: [api, cache]
    starts_at: 2030-01-12T01:00:00+01:00
    ends_at: 2030-01-12T03:00:00+01:00
    time_zone: Europe/Berlin
    recurrence: FREQ=WEEKLY;BYDAY=SA
"""
SECRETS = {"ONCALL_URL": "https://hooks.example.com/Tn7Qw", "API_TOKEN": "t0p-s3cret"}


@pytest.fixture
def cli(owner: Api, tmp_path: Path):
    """Run a command as CI would, with a key: `cli(*arguments, **environment) -> CompletedProcess`."""
    key = owner.ask("POST", "/v1/api-keys", json={"name": "CI", "scopes": ["write"]})["secret"]

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "server.cli", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "TOCSIN_URL": owner.url, "TOCSIN_API_KEY": key, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_file_is_applied_exported_changed_and_taken_away(owner, cli, tmp_path):
    path = tmp_path / "acme.yaml"
    path.write_text(FILE)
    planned = cli("apply", "acme.yaml", "--dry-run", "--detailed-exitcode", **SECRETS)
    assert (planned.returncode, planned.stderr) == (2, "")
    assert "Plan: 8 to create, 0 stay as they are." in planned.stdout
    assert owner.ask("GET", "/v1/monitors")["data"] == []

    applied = cli("apply", "acme.yaml", "--yes", "--channel-secrets", "kept.yaml", **SECRETS)
    assert applied.returncode == 0, applied.stderr
    assert "Done: 8 created." in applied.stdout
    assert "whsec_" in (tmp_path / "kept.yaml").read_text()
    assert (tmp_path / "kept.yaml").stat().st_mode & 0o077 == 0
    monitors = {each["name"]: each for each in owner.ask("GET", "/v1/monitors")["data"]}
    assert monitors["API"]["depends_on"] == [monitors["gateway"]["id"]]
    assert monitors["API"]["options"]["headers"]["X-Trace"] == "${TRACE}"
    assert monitors["API"]["options"]["auth"]["type"] == "bearer"

    again = cli("apply", "acme.yaml", "--yes", **SECRETS)
    assert "Nothing to do: 8 stay as they are." in again.stdout, again.stdout

    exported = cli("export", "--output", "exported.yaml")
    assert exported.returncode == 0, exported.stderr
    assert "Nothing to do: 8 stay" in cli("apply", "exported.yaml", "--dry-run").stdout
    for shown in (planned.stdout, applied.stdout, applied.stderr, (tmp_path / "exported.yaml").read_text()):
        assert "t0p-s3cret" not in shown

    wrong_text = FILE.replace("  names:", "  renamed: {}\n  names:")
    path.write_text(wrong_text)
    wrong = cli("apply", "acme.yaml", "--yes", **SECRETS)
    assert wrong.returncode == 1
    line = wrong_text.splitlines().index("  renamed: {}") + 1
    assert wrong.stderr == f"acme.yaml:{line}: monitors.renamed: target is required.\n"

    path.write_text(
        "\n".join(line for line in FILE.replace("packets: 2", "packets: 4").splitlines() if "  mail:" not in line)
    )
    hesitant = cli("apply", "acme.yaml", "--yes", **SECRETS)
    assert (hesitant.returncode, "--yes does not delete: 1 would be lost." in hesitant.stderr) == (1, True)
    pruned = cli("apply", "acme.yaml", "--yes", "--prune", **SECRETS)
    assert pruned.returncode == 0, pruned.stderr
    assert "Done: 1 changed, 1 deleted." in pruned.stdout
    assert len(owner.ask("GET", "/v1/monitors")["data"]) == 5
    [window] = owner.ask("GET", "/v1/maintenance-windows")["data"]
    assert set(window["monitor_ids"]) == {monitors["API"]["id"], monitors["cache"]["id"]}

    path.write_text("monitors: {}\nchannels: {}\nmaintenance_windows: {}\n")
    assert "add --prune" in cli("apply", "acme.yaml", "--yes").stderr
    emptied = cli("apply", "acme.yaml", "--yes", "--prune")
    assert emptied.returncode == 0, emptied.stderr
    for name in ("monitors", "channels", "maintenance-windows"):
        assert owner.ask("GET", f"/v1/{name}")["data"] == []


def test_what_the_api_refuses_is_told_with_its_line_and_the_rest_is_done(owner, cli, tmp_path):
    (tmp_path / "acme.yaml").write_text(
        "monitors:\n"
        "  inner: {target: 'http://10.0.0.1/'}\n"
        "  child: {target: 'https://example.com/', depends_on: [inner]}\n"
        "  fine: {target: 'https://example.com/'}\n"
    )
    done = cli("apply", "acme.yaml", "--yes")
    assert done.returncode == 1
    assert 'acme.yaml:2: create monitor "inner": target: The URL points into a private network' in done.stderr
    assert "it needs the monitor inner" in done.stderr
    assert "Done: 1 created. NOT done: 2." in done.stdout
    assert [each["name"] for each in owner.ask("GET", "/v1/monitors")["data"]] == ["fine"]


def test_a_backup_of_uptime_kuma_is_taken_over_in_one_go(owner, cli):
    done = cli("import", "uptime-kuma", str(ROOT / "tests" / "cli" / "uptime-kuma-1.23.json"), "--apply", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Done: 11 created." in done.stdout
    monitors = {each["name"]: each for each in owner.ask("GET", "/v1/monitors")["data"]}
    assert monitors["Queue"]["options"]["auth"]["username"] == "kuma"
    assert monitors["Queue"]["assertions"] == ['json $.queue["dead letters"][0].depth in ["0", 0]']
    assert monitors["Router"]["paused"]
    again = cli("import", "uptime-kuma", str(ROOT / "tests" / "cli" / "uptime-kuma-1.23.json"), "--apply", "--yes")
    assert "Nothing to do: 11 stay as they are." in again.stdout
