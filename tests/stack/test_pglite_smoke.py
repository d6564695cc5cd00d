"""What `make run` has: the same product over PGlite, in short."""

from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Receiver, Target, eventually, running_api, running_worker
from tests.stack.streaming import SseClient, running_streams


def test_the_product_works_on_pglite_as_well(embedded_pglite: EmbeddedSupabase, tmp_path):
    target, receiver = Target(), Receiver()
    target.start()
    try:
        with running_api(embedded_pglite, tmp_path) as api, running_worker(embedded_pglite, tmp_path):
            mine = api.as_user(sign_up_at(embedded_pglite).access_token)
            begun = mine.ask("GET", "/v1/events")["next_after"]
            org = mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
            channel = mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
            draft = {"name": "site", "target": target.url, "interval_seconds": 5, "assertions": ["status == 200"]}
            monitor = mine.ask("POST", "/v1/monitors", json=draft)
            assert (monitor["org_id"], monitor["assertions"]) == (org["id"], ["status == 200"])
            here = f"/v1/monitors/{monitor['id']}"
            eventually(lambda: mine.ask("GET", here)["state"] == "up", "the monitor is not up", within_seconds=40)
            mine.ask("POST", f"/v1/channels/{channel['id']}/test")
            eventually(lambda: receiver.of_type("channel.test"), "the test was not delivered", within_seconds=40)
            assert [each["id"] for each in mine.ask("GET", "/v1/monitors")["data"]] == [monitor["id"]]
            assert mine.ask("GET", here + "/checks")["data"][0]["outcome"] == "up"
            assert mine.ask("GET", here + "/uptime")["uptime_ratio"] == 1
            page = mine.ask("GET", f"/v1/events?after={begun}&limit=200")
            assert {"organisation.created", "monitor.created", "monitor.up"} <= {each["type"] for each in page["data"]}
            with running_streams(embedded_pglite, tmp_path) as url:
                stream = SseClient(url, mine.token, last_event_id=begun)
                assert [next(iter(stream)).type for _ in range(2)] == ["ready", "organisation.created"]
                mine.ask("PATCH", here, json={"name": "renamed"})
                assert stream.of_type("monitor.updated").data["data"]["name"] == "renamed"
                stream.cut()
            key = mine.ask("POST", "/v1/api-keys", json={"name": "jobs", "scopes": ["pings:write"]})["secret"]
            assert api.send("GET", f"/ping/{key}/backup?create=1").text == "Created"
            named = "/v1/monitors?q=backup"
            eventually(lambda: mine.ask("GET", named)["data"][0]["state"] == "up", "the heartbeat is not up")
            stranger = api.as_user(sign_up_at(embedded_pglite).access_token)
            assert stranger.send("GET", here).status_code == 404
            assert stranger.ask("GET", "/v1/monitors")["data"] == []
    finally:
        target.stop()
        receiver.close()
