"""The main job, end to end, everything real: sign in, watch a URL, know when it breaks, know when it is back."""

from datetime import datetime

from standardwebhooks.webhooks import Webhook

from tests.stack.conftest import SignUp
from tests.stack.product import Api, Receiver, Target, eventually


def test_somebody_who_signs_up_is_told_when_their_site_breaks_and_when_it_is_back(
    api: Api, worker: object, sign_up: SignUp, target: Target, receiver: Receiver
):
    mine = api.as_user(sign_up().access_token)
    org = mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
    channel = mine.ask("POST", "/v1/channels", json={"name": "hook", "kind": "webhook", "url": receiver.url})
    monitor = mine.ask(
        "POST",
        "/v1/monitors",
        json={"name": "site", "kind": "http", "target": target.url, "interval_seconds": 5, "retry_interval_seconds": 1},
    )
    here = f"/v1/monitors/{monitor['id']}"
    assert monitor["org_id"] == org["id"], "the only organisation is taken without asking"

    eventually(lambda: mine.ask("GET", here)["state"] == "up", "the monitor is not up")
    assert receiver.received == [], "new to up is silent"

    target.stop()
    eventually(lambda: receiver.of_type("incident.opened"), "nobody was told of the outage")
    assert mine.ask("GET", here)["state"] == "down"
    incident = mine.ask("GET", f"/v1/incidents?monitor_id={monitor['id']}")["data"][0]
    assert (incident["state"], incident["cause"]) == ("open", "connect")
    assert moment(incident["started_at"]) <= moment(incident["opened_at"])

    target.start()
    eventually(lambda: receiver.of_type("incident.resolved"), "nobody was told that it is back")
    assert mine.ask("GET", here)["state"] == "up"
    incident = mine.ask("GET", f"/v1/incidents/{incident['id']}")
    assert (incident["state"], incident["resolution"], incident["resolved_by"]) == ("resolved", "recovered", None)

    assert [each.message["type"] for each in receiver.received] == ["incident.opened", "incident.resolved"]
    for each in receiver.received:
        Webhook(channel["secret"]).verify(each.body, each.headers)
        assert each.message["incident"]["id"] == incident["id"]
        assert each.headers["webhook-id"] == each.message["id"]

    def settled() -> list[dict[str, object]]:
        deliveries = mine.ask("GET", f"/v1/deliveries?incident_id={incident['id']}")["data"]
        return deliveries if all(each["state"] == "delivered" for each in deliveries) else []

    assert {each["type"] for each in eventually(settled, "the deliveries are not settled")} == {
        "incident.opened",
        "incident.resolved",
    }

    checks = mine.ask("GET", f"{here}/checks?limit=200")["data"]
    assert {each["outcome"] for each in checks} == {"up", "down"}
    assert all(each["counted"] for each in checks)
    up = next(each for each in checks if each["outcome"] == "up")
    assert up["status_code"] == 200
    assert 0 < up["connect_ms"] <= up["total_ms"]
    assert up["tls_ms"] is None, "there is no TLS in plain http"
    down = next(each for each in checks if each["outcome"] == "down")
    assert (down["status_code"], down["error_kind"]) == (None, "connect")

    uptime = mine.ask("GET", f"{here}/uptime")
    assert uptime["up_ms"] > 0
    assert uptime["down_ms"] > 0
    assert uptime["unknown_ms"] == 0
    assert 0 < uptime["uptime_ratio"] < 1
    assert uptime["coverage_ratio"] == 1


def moment(text: str) -> datetime:
    assert text.endswith("Z"), "times leave in UTC, with a Z"
    return datetime.fromisoformat(text)
