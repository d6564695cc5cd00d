"""The whole life of a monitor, in one story: everything that it can be, what leads there, and who hears of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.stack.conftest import SignUp
from tests.stack.product import Api, Receiver, Target, eventually


class Watched:
    """A site and the monitor that watches it: every 5 s, a suspicion after 1 s, down after three failures in a row."""

    def __init__(self, api: Api, name: str, **more: Any) -> None:
        self._api = api
        self.site = Target()
        self.site.start()
        settings = {"interval_seconds": 5, "retry_interval_seconds": 1, "fail_threshold": 3, "recover_threshold": 2}
        self.id = api.ask("POST", "/v1/monitors", json={"name": name, "target": self.site.url, **settings, **more})[
            "id"
        ]
        self.here = f"/v1/monitors/{self.id}"

    def becomes(self, state: str) -> None:
        """Wait until the monitor is in a state."""
        eventually(lambda: self._api.ask("GET", self.here)["state"] == state, f"it is not {state}", within_seconds=30)

    @property
    def incident(self) -> dict[str, Any]:
        """The newest incident."""
        newest: dict[str, Any] = self._api.ask("GET", f"/v1/incidents?monitor_id={self.id}")["data"][0]
        return newest

    def is_told(self, receiver: Receiver) -> list[str]:
        """Return what has been told of this monitor so far."""
        return [each.message["type"] for each in receiver.received if each.message["monitor"]["id"] == self.id]


@pytest.fixture
def mine(api: Api, worker: object, sign_up: SignUp, receiver: Receiver) -> Api:
    """Somebody with an organisation and a channel."""
    mine = api.as_user(sign_up().access_token)
    mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
    mine.ask("POST", "/v1/channels", json={"name": "hook", "kind": "webhook", "url": receiver.url})
    return mine


@pytest.fixture
def gateway(mine: Api) -> Iterator[Watched]:
    gateway = Watched(mine, "gateway")
    yield gateway
    gateway.site.stop()


@pytest.fixture
def shop(mine: Api, gateway: Watched) -> Iterator[Watched]:
    shop = Watched(mine, "shop", depends_on=[gateway.id])
    yield shop
    shop.site.stop()


OUTAGE = ["incident.opened", "incident.resolved"]


def test_the_whole_life_of_a_monitor(mine: Api, receiver: Receiver, gateway: Watched, shop: Watched):
    # new ► up: in silence
    gateway.becomes("up")
    shop.becomes("up")
    assert shop.is_told(receiver) == []

    # up ► pending ► up: a suspicion that passes is nobody's concern
    shop.site.stop()
    shop.becomes("pending")
    shop.site.start()
    shop.becomes("up")
    assert shop.is_told(receiver) == []

    # up ► pending ► down: three failures in a row open an incident, which is told
    shop.site.stop()
    shop.becomes("pending")
    shop.becomes("down")
    eventually(lambda: shop.is_told(receiver) == OUTAGE[:1], "nobody was told of the outage")

    # down ► up: two successes in a row end it, which is told
    shop.site.start()
    shop.becomes("up")
    eventually(lambda: shop.is_told(receiver) == OUTAGE, "nobody was told of the end")

    # In maintenance it is shown as it is, down, and nobody is told ...
    window = mine.ask(
        "POST",
        "/v1/maintenance-windows",
        json={
            "name": "deploy",
            "monitor_ids": [shop.id],
            "starts_at": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
            "ends_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        },
    )
    shop.site.stop()
    shop.becomes("down")
    assert [hold["kind"] for hold in shop.incident["held_by"]] == ["maintenance"]
    assert shop.is_told(receiver) == OUTAGE

    # ... until the window ends, if it still is
    mine.ask("POST", f"/v1/maintenance-windows/{window['id']}/end")
    eventually(lambda: shop.is_told(receiver) == OUTAGE + OUTAGE[:1], "the end of maintenance told nobody")
    shop.site.start()
    shop.becomes("up")
    eventually(lambda: shop.is_told(receiver) == OUTAGE * 2, "nobody was told of the end")

    # While its parent is down, its own alert is held: one cause is told once
    gateway.site.stop()
    gateway.becomes("down")
    shop.site.stop()
    shop.becomes("down")
    assert [hold["kind"] for hold in shop.incident["held_by"]] == ["dependency"]
    assert shop.is_told(receiver) == OUTAGE * 2
    eventually(lambda: gateway.is_told(receiver) == OUTAGE[:1], "nobody was told of the parent")

    # ... and told when the parent is up and it alone is not
    gateway.site.start()
    gateway.becomes("up")
    eventually(lambda: shop.is_told(receiver) == OUTAGE * 2 + OUTAGE[:1], "what was held was never told")

    # paused ► unknown: nobody watches, so the incident ends
    mine.ask("POST", f"{shop.here}/pause")
    shop.becomes("unknown")
    assert shop.incident["resolution"] == "monitor_paused"
    eventually(lambda: shop.is_told(receiver) == OUTAGE * 3, "nobody was told of the end")

    # paused ► new ► up: in silence
    shop.site.start()
    mine.ask("POST", f"{shop.here}/resume")
    shop.becomes("up")
    assert shop.is_told(receiver) == OUTAGE * 3

    # The ledger has all of it, and no hole
    ledger = list(reversed(mine.ask("GET", f"{shop.here}/intervals?limit=200")["data"]))
    assert [line["state"] for line in ledger] == ["up", "down", "up", "down", "up", "down", "unknown", "up"]
    assert all(line["ended_at"] == after["started_at"] for line, after in pairwise(ledger))
    assert ledger[-1]["ended_at"] is None
