"""The API against its own OpenAPI document: Schemathesis, every check, as two users who must not see each other's.

Some 4,000 cases; `make fuzz` goes on to more than 10,000. What JSON Schema cannot say, fuzzing_hooks.py knows.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import ROOT, Api, running_api
from tests.stack.sql import value
from tests.stack.test_isolation import DRAFT, furnish, open_incident

# How many of each thing are there to be taken away; what the other routes are tried on stays.
SPARE = 20
# The one operation that another process serves: the stream.
ELSEWHERE = 1

ONCE = {"all_monitors": True, "starts_at": "2030-01-12T01:00:00Z", "ends_at": "2030-01-12T03:00:00Z"}


def test_the_api_does_what_its_document_says_and_nothing_else(
    own_supabase: EmbeddedSupabase,
    connection: psycopg.Connection,
    tmp_path: Path,
    request: pytest.FixtureRequest,
):
    examples, seed = request.config.getoption("--fuzz-examples"), request.config.getoption("--fuzz-seed")
    with running_api(own_supabase, tmp_path) as api:
        ana, ben = sign_up_at(own_supabase), sign_up_at(own_supabase)
        furnish(api.as_user(ben.access_token), connection)
        world = furnish_richly(api.as_user(ana.access_token), ana.email, own_supabase, connection)
        configure(tmp_path, {"ana": ana.access_token, "ben": ben.access_token}, world)
        bounds = [f"--seed={seed}", f"--max-examples={examples}"]
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/openapi.json", "--checks=all", *bounds],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    report = json.loads((tmp_path / "report.json").read_text())
    cases = report["test_cases"]
    print("\n" + done.stdout[done.stdout.rfind("API Operations:") :])
    assert done.returncode == 0, done.stdout
    assert has_read_for_the_other(tmp_path / "api.log", str(ben.id)), "nobody asked for what is the other's"
    assert report["complete"], done.stdout
    assert report["operations"]["tested"] == report["operations"]["total"] - ELSEWHERE, done.stdout
    assert cases["generated"] >= 3_000 + 45 * examples, done.stdout


def has_read_for_the_other(log: Path, peer: str) -> bool:
    """Tell whether the check of foreign ids was made: of things by their ids, as one who may not see them."""
    with log.open() as lines:
        requests = [json.loads(line) for line in lines]
    return any(request.get("principal_id") == peer and request["status"] == 404 for request in requests)


def furnish_richly(
    owner: Api, owner_email: str, supabase: EmbeddedSupabase, connection: psycopg.Connection
) -> Mapping[str, Any]:
    """Make an organisation, and of each thing one to keep and many to spare; return their ids by path parameter."""
    ids = furnish(owner, connection)
    heir, *members = [str(sign_up_at(supabase).id) for _ in range(SPARE)]

    def spare(path: str, **body: Any) -> list[str]:
        return [str(owner.ask("POST", path, json={"name": f"spare {n}", **body})["id"]) for n in range(SPARE)]

    kept = {f"{thing}_id": [id_] for thing, id_ in ids.items() if thing != "member"}
    orgs, given_orgs = spare("/v1/orgs"), spare("/v1/orgs")
    elsewhere, tokens = invite_from_elsewhere(Api(owner.url, sign_up_at(supabase).access_token), owner_email)
    for org, user in [
        *((ids["org"], member) for member in members),
        *((org, heir) for org in given_orgs),
        *((org, ids["member"]) for org in elsewhere),
    ]:
        connection.execute("insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')", [org, user])
    monitors = spare("/v1/monitors", target=DRAFT["target"], org_id=ids["org"])
    incidents = [open_incident(connection, ids["org"], monitor) for monitor in monitors]
    invited = [{"email": f"x{n}@y.zz", "role": "viewer"} for n in range(SPARE)]
    invitations = f"/v1/orgs/{ids['org']}/invitations"
    return {
        "org": ids["org"],
        "me": ids["member"],
        "position": owner.ask("GET", "/v1/events")["next_after"],
        "heir": heir,
        "tokens": tokens,
        "kept": {
            **kept,
            "user_id": members[:1],
            "asset": ["start.js"],
            "heartbeat": [value(connection, "select ping_id::text from monitors where id = %s", [ids["heartbeat"]])],
        },
        "spare": {
            "monitor_id": monitors,
            "incident_id": incidents,
            "channel_id": spare("/v1/channels", url=DRAFT["target"], org_id=ids["org"]),
            "window_id": spare("/v1/maintenance-windows", org_id=ids["org"], **ONCE),
            "key_id": spare("/v1/api-keys", scopes=["read"], org_id=ids["org"]),
            "invitation_id": [owner.ask("POST", invitations, json=each)["id"] for each in invited],
            "user_id": members[1:],
            "org_id": orgs,
            "given_org_id": given_orgs,
            "joined_org_id": elsewhere,
        },
    }


def invite_from_elsewhere(host: Api, email: str) -> tuple[list[str], list[str]]:
    """Make organisations of somebody else's; return the ids of some, and invitations of somebody into the others."""
    orgs = [host.ask("POST", "/v1/orgs", json={"name": f"elsewhere {n}"})["id"] for n in range(SPARE)]
    joined, inviting = orgs[::2], orgs[1::2]
    invitation = {"email": email, "role": "viewer"}
    return joined, [host.ask("POST", f"/v1/orgs/{org}/invitations", json=invitation)["token"] for org in inviting]


def configure(folder: Path, tokens: Mapping[str, str], world: Mapping[str, Any]) -> None:
    """Write what Schemathesis and tests/stack/fuzzing_hooks.py read."""
    peers = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {token}"}]}
        for name, token in tokens.items()
    ]
    (folder / "auth.json").write_text(json.dumps({"auth": peers}))
    (folder / "world.json").write_text(json.dumps(world))
    (folder / "schemathesis.toml").write_text(CONFIGURATION)


CONFIGURATION = """
hooks = "tests.stack.fuzzing_hooks"
continue-on-failure = true
request-timeout = 30

[warnings]
# The other three weigh how often a request came to nothing: half of our ids and ETags are of nothing, on purpose.
fail-on = [
  "missing_auth", "base_url_mismatch", "missing_deserializer", "unused_openapi_auth", "unsupported_regex",
  "method_not_allowed", "constants_extraction", "unmatched_filter", "unresolvable_reference", "rate_limited",
  "dictionary_mismatch", "timeout_units",
]

[auth.wfc]
path = "auth.json"
user = "ana"
peers = ["ana", "ben"]

[generation]
database = "none"

[checks.positive_data_acceptance]
# 412 and 410 are said of the state of a thing, as 404 and 409 are: no schema knows which ETag or position stands.
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "410", "412", "429", "5xx"]

[reports]
directory = "."
json = { enabled = true, path = "report.json" }

[[operations]]
# A protocol of others: which id or key goes with which signal, no schema says, and what it does not know it passes
# over. tests/http/test_pings.py sends these routes whatever comes.
include-path-regex = "^/ping/"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409", "429", "5xx"]
checks.negative_data_rejection.enabled = false
checks.unsupported_method.enabled = false

[[operations]]
# Another process serves it, and here is a redirect to where none runs. tests/streams and tests/stack/test_streams.py.
include-operation-id = "follow_events"
enabled = false
"""
