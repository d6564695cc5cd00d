"""A job from its first ping to the webhook that says it failed, with a worker that nobody helps."""

import subprocess
from typing import Any

from tests.stack.conftest import SignUp
from tests.stack.product import Api, Receiver, eventually


def test_who_is_told_of_a_job_hears_when_it_fails_hangs_and_is_well_again(
    sign_up: SignUp, api: Api, worker: subprocess.Popen[bytes], receiver: Receiver
):
    mine = api.as_user(sign_up().access_token)
    mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
    mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
    draft: dict[str, Any] = {
        "name": "Nightly backup",
        "kind": "heartbeat",
        "options": {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "grace_seconds": 1},
    }
    monitor = mine.ask("POST", "/v1/monitors", json=draft)
    here, url = f"/v1/monitors/{monitor['id']}", f"/ping/{monitor['ping_id']}"

    def is_now(state: str) -> None:
        eventually(lambda: mine.ask("GET", here)["state"] == state, f"it is not {state}")

    def told(message_type: str) -> list[tuple[str, str]]:
        found = [each.message["incident"] for each in receiver.of_type(message_type)]
        return [(each["cause"], each["summary"]) for each in found]

    # 1. Nothing is expected of a job before it has run once.
    assert (monitor["state"], mine.ask("GET", f"{here}/heartbeat")["status"]) == ("new", "new")
    # 2. It runs.
    assert api.send("GET", f"{url}/start").text == "OK"
    assert api.send("POST", f"{url}/0", data="12 tables").text == "OK"
    is_now("up")
    expected_at = mine.ask("GET", f"{here}/heartbeat")["next_expected_at"]
    assert expected_at[11:19] in {"00:30:00", "01:30:00"}, "02:30 in Berlin, in summer or in winter"
    # 3. It fails, and says so.
    api.send("GET", f"{url}/3")
    is_now("down")
    failed = ("failed", "the job ended with exit status 3")
    eventually(lambda: told("incident.opened") == [failed], "nobody was told that it failed")
    # 4. It is well again.
    api.send("GET", url)
    is_now("up")
    eventually(lambda: told("incident.resolved") == [failed], "nobody was told of the end")
    # 5. It starts, and does not end within its grace.
    api.send("GET", f"{url}/start")
    is_now("down")
    eventually(lambda: [cause for cause, _ in told("incident.opened")] == ["failed", "ran_too_long"], "not told")
    # 6. All of it is in its history, and what it said can be read.
    kinds = [ping["kind"] for ping in mine.ask("GET", f"{here}/pings")["data"]]
    assert kinds == ["start", "success", "fail", "success", "start"]
    assert worker.poll() is None
