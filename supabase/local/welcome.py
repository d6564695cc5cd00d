"""Waits for the API, seeds the demo once, and tells a newcomer where things are. Runs beside them under `run.py`."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from environment import read_port
from ports import HOST
from stack import DEFAULT_PORT

EMAIL, PASSWORD = "demo@tocsin.dev", "tocsin-demo"
CLOSED_PORT = 9  # "discard": nobody listens there, on any machine of today
READY_WITHIN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the API, the streams and Supabase answer, and the key that clients send."""

    api: str
    streams: str
    supabase: str
    publishable_key: str


class SeedError(Exception):
    """The demo could not be seeded; the message is one line."""


def main() -> int:
    """Wait, seed, tell, and then stay until we are ended: the supervisor ends everything when one process does."""
    addresses = read_addresses(os.environ)
    if not await_ready(addresses.api, READY_WITHIN_SECONDS):
        print(f"The API at {addresses.api} did not get ready within {READY_WITHIN_SECONDS} s.", flush=True)
        return 1
    try:
        seed(addresses)
    except (SeedError, requests.RequestException) as error:
        print(f"The demo could not be seeded: {error}", flush=True)
    print(greeting(addresses), flush=True)
    signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(0))
    while True:
        signal.pause()


def read_addresses(environment: Mapping[str, str]) -> Addresses:
    """Work out the addresses from the variables that `run.py` has set."""
    return Addresses(
        api=f"http://{HOST}:{read_port(environment, 'PORT', 8000)}",
        streams=f"http://{HOST}:{read_port(environment, 'STREAMS_PORT', 8001)}",
        supabase=f"http://{HOST}:{read_port(environment, 'SUPABASE_PORT', DEFAULT_PORT)}",
        publishable_key=environment["SUPABASE_PUBLISHABLE_KEY"],
    )


def await_ready(api: str, timeout_seconds: float) -> bool:
    """Return True as soon as /readyz answers 200, False when it has not within the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            if requests.get(f"{api}/readyz", timeout=5).status_code == 200:
                return True
        except requests.RequestException:
            pass  # not listening yet
        time.sleep(0.1)
    return False


def seed(addresses: Addresses) -> None:
    """Create the demo's user, organisation and monitors, as far as they do not exist. Raises SeedError."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {sign_in(addresses)}"
        orgs = _read_list(session, f"{addresses.api}/v1/orgs")
        org = next((org for org in orgs if org["name"] == "Demo"), None)
        if org is None:
            org = _create(session, f"{addresses.api}/v1/orgs", {"name": "Demo"})
        url = f"{addresses.api}/v1/monitors"
        existing = {monitor["target"] for monitor in _read_list(session, url)}
        for name, target in {
            "Tocsin itself": f"{addresses.api}/healthz",
            "A service that is down": f"http://{HOST}:{CLOSED_PORT}/",
        }.items():
            if target not in existing:
                monitor = {"name": name, "kind": "http", "target": target, "interval_seconds": 30}
                _create(session, url, {"org_id": org["id"], **monitor})


def sign_in(addresses: Addresses) -> str:
    """Return an access token of the demo's user, who signs up where nobody of that name has."""
    headers = {"apikey": addresses.publishable_key}
    credentials = {"email": EMAIL, "password": PASSWORD}
    auth = f"{addresses.supabase}/auth/v1"
    answer = requests.post(f"{auth}/token?grant_type=password", headers=headers, json=credentials, timeout=30)
    if answer.status_code == 400:
        answer = requests.post(f"{auth}/signup", headers=headers, json=credentials, timeout=30)
    token: str = _body(answer)["access_token"]
    return token


def _read_list(session: requests.Session, url: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = _body(session.get(url, timeout=30))["data"]
    return data


def _create(session: requests.Session, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return _body(session.post(url, json=body, timeout=30))


def _body(answer: requests.Response) -> dict[str, Any]:
    if not answer.ok:
        raise SeedError(f"{answer.request.method} {answer.url} answered {answer.status_code}: {answer.text[:200]}")
    body: dict[str, Any] = answer.json()
    return body


def greeting(addresses: Addresses) -> str:
    """Write what a newcomer needs: addresses, the demo's sign-in, one command that works as pasted."""
    credentials = f'{{"email":"{EMAIL}","password":"{PASSWORD}"}}'
    token = (
        f"$(curl -s '{addresses.supabase}/auth/v1/token?grant_type=password' "
        f"-H 'apikey: {addresses.publishable_key}' -H 'Content-Type: application/json' -d '{credentials}' "
        """| sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"""
    )
    return f"""
  Tocsin is up.

    API        {addresses.api}
    Reference  {addresses.api}/docs
    Streams    {addresses.streams}/v1/events/stream
    Supabase   {addresses.supabase}   (publishable key {addresses.publishable_key})
    Demo user  {EMAIL}   password {PASSWORD}

  List the demo's monitors; one of them goes down within a minute:

    curl -s {addresses.api}/v1/monitors -H "Authorization: Bearer {token}"

  Ctrl-C ends everything and keeps the data.
"""


if __name__ == "__main__":
    sys.exit(main())
