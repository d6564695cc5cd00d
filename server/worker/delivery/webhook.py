"""Webhooks, signed by the Standard Webhooks specification (standardwebhooks.com), so that receivers verify with any
of its libraries."""

import base64
import binascii
import hashlib
import hmac
import logging
import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import certifi
import requests
import urllib3

from server.details import clean_detail
from server.egress import Egress, Resolve
from server.worker.delivery.outcome import Delivered, Failed
from server.worker.delivery.route import (
    AddressRefusedError,
    Route,
    RouteAdapter,
    UnreachableError,
    UnresolvableError,
)

logger = logging.getLogger(__name__)

USER_AGENT = "Tocsin/0.1 (webhook)"
SECRET_PREFIX = "whsec_"  # noqa: S105 - the marker before a secret, not one

MAX_RESPONSE_BYTES = 16_000
_SHOWN_BODY_LENGTH = 120
_LONGEST_RETRY_AFTER_SECONDS = 86_400


class WebhookSender:
    """Sends webhooks, each over a fresh connection; any number of threads may share one sender.

    `connect_seconds` bounds each address's connection and TLS handshake, `read_seconds` each wait for bytes, and
    `total_seconds` the delivery. `ca_path` is a PEM file of the roots that are trusted.
    """

    def __init__(
        self,
        egress: Egress,
        *,
        connect_seconds: float = 5,
        read_seconds: float = 10,
        total_seconds: float = 15,
        ca_path: str | None = None,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._egress = egress
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds
        self._resolve = resolve
        self._tls = ssl.create_default_context(cafile=ca_path or certifi.where())

    def send(self, url: str, *, secret: str, delivery_id: str, body: bytes, now: datetime) -> Delivered | Failed:
        """POST a JSON `body` once and return what came of it; blocks, and never raises for what the receiver does.

        `delivery_id` stays the same when the delivery is repeated, so that receivers can tell. `secret` is
        `whsec_` and base64.
        """
        timestamp = int(now.timestamp())
        try:
            signature = sign(secret, delivery_id, timestamp, body)
        except ValueError:
            return Failed(permanent=True, status_code=None, detail="the channel's signing secret is malformed")
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": delivery_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature,
        }
        with Route(
            self._egress,
            connect_seconds=self._connect_seconds,
            total_seconds=self._total_seconds,
            resolve=self._resolve,
        ) as route:
            try:
                return self._post(route, requests.Request("POST", url, headers=headers, data=body), now)
            except Exception as error:
                return self._explain(error, route, url)

    def _post(self, route: Route, request: requests.Request, now: datetime) -> Delivered | Failed:
        """Send straight through the adapter, without a Session, which would follow redirects, keep cookies, ask the
        environment for proxies and netrc, and read a redirect's whole body before it declines to follow it."""
        adapter = RouteAdapter(route, self._tls)
        try:
            timeouts = (self._connect_seconds, self._read_seconds)
            with adapter.send(request.prepare(), stream=True, timeout=timeouts) as response:
                if route.expired:  # http.client takes a head that was cut off for a whole one
                    raise TimeoutError
                return judge(response.status_code, response.headers.get("retry-after"), _read_start(response), now)
        finally:
            adapter.close()

    def _explain(self, error: Exception, route: Route, url: str) -> Failed:
        match error:
            case AddressRefusedError():
                # Users do not learn what a name resolves to inside the operator's network; the log does.
                logger.info("webhook to %s refused: %s", urlsplit(url).hostname, error)
                return _fail("the address is not public", permanent=True)
            case UnresolvableError():
                return _fail("the host's name could not be resolved")
            case _ if route.expired:
                return _fail(f"no answer within {self._total_seconds:g} s")
            case UnreachableError():
                return _fail(f"could not connect: {error}".lower())
            case requests.exceptions.SSLError():
                return _fail(f"TLS failed: {_innermost(error)}")
            case requests.Timeout():
                return _fail("no answer in time")
            case requests.ConnectionError():
                return _fail(f"the connection broke: {_innermost(error)}")
            case requests.RequestException() | UnicodeError():
                return _fail("the channel's URL is malformed", permanent=True)
        logger.error("webhook failed in an unforeseen way", exc_info=error)
        return _fail(f"the sender itself failed: {type(error).__name__}")


def judge(status_code: int, retry_after: str | None, start_of_body: str, now: datetime) -> Delivered | Failed:
    """Decide what a response means: 2xx is delivered, anything else has failed.

    410 Gone is the one refusal that receivers mean for good (the specification names it). The other 4xx are tried
    again like 5xx: in practice they are a receiver half deployed, a route or a secret that somebody is fixing.
    """
    if 200 <= status_code <= 299:
        return Delivered(status_code)
    text = f"answered {status_code}"
    if 300 <= status_code <= 399:
        text += ", and redirects are not followed: enter the final address"
    elif start_of_body:
        text += f": {start_of_body}"
    wait = read_retry_after(retry_after, now)
    return Failed(
        permanent=status_code == 410, status_code=status_code, detail=clean_detail(text), retry_after_seconds=wait
    )


def sign(secret: str, delivery_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` header: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.

    `timestamp` is in Unix seconds. Raises ValueError where the secret is not `whsec_` and base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a signing secret starts with whsec_")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a signing secret is base64") from error
    if not key:
        raise ValueError("a signing secret is not empty")
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def read_retry_after(value: str | None, now: datetime) -> int | None:
    """Return how many seconds a Retry-After header asks for, 0 to a day; None where it is absent or unreadable.

    It holds seconds or an HTTP date (RFC 9110, section 10.2.3).
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), _LONGEST_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(0, round(seconds)), _LONGEST_RETRY_AFTER_SECONDS)


def _read_start(response: requests.Response) -> str:
    """Read at most 16 kB of the body and return its first words; the status counts, however the body ends."""
    try:
        start = response.raw.read(MAX_RESPONSE_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return ""
    return " ".join(start[: 4 * _SHOWN_BODY_LENGTH].decode("utf-8", "replace").split())[:_SHOWN_BODY_LENGTH]


def _fail(detail: str, *, permanent: bool = False) -> Failed:
    return Failed(permanent=permanent, status_code=None, detail=clean_detail(detail))


def _innermost(error: BaseException) -> str:
    """Return the words of the error at the bottom: requests and urllib3 wrap it in three of theirs."""
    seen: BaseException = error
    while (below := seen.__cause__ or seen.__context__) is not None:
        seen = below
    return getattr(seen, "strerror", None) or str(seen) or type(seen).__name__
