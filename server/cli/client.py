"""The API as any client meets it: docs/api.md says how lists, retries, limits and validators go."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import requests
from requests.auth import AuthBase

from server.settings import ClientSettings

PAGE = 200
TIMEOUT_SECONDS = (10, 60)  # to connect, and between two pieces of an answer
WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0)
# A minute's limit is over within a minute; who is told to wait longer is told by us instead.
LONGEST_WAIT_SECONDS = 120.0
MOST_WAITS = 30
_BUSY = frozenset({502, 503, 504})


class WrongField(NamedTuple):
    """One field that the API refuses: a JSON pointer into what was sent."""

    pointer: str
    detail: str


class Refused(Exception):
    """The API said no. `status` 0: it did not answer."""

    def __init__(self, status: int, code: str, detail: str, fields: tuple[WrongField, ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = fields


class _Bearer(AuthBase):
    """The key. As `auth`, so that no .netrc puts its own in this place."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


class _Unanswered(NamedTuple):
    error: Exception


@dataclass(slots=True)
class Api:
    """Speaks to one API with one key. `pause` waits some seconds, `say` tells the person why, `spread` is in [0, 1)."""

    settings: ClientSettings
    pause: Callable[[float], None]
    say: Callable[[str], None]
    spread: Callable[[], float]
    _session: requests.Session = field(default_factory=requests.Session)

    def read(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Read one thing. Raises Refused."""
        return self._send("GET", path, params=query)

    def list_all(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield everything that a list has, page by page. Raises Refused."""
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.read(path, query)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def create(self, path: str, body: Any, once: str) -> Any:
        """Make something, under an Idempotency-Key: however often it is sent, it is made once. Raises Refused."""
        return self._send("POST", path, json=body, headers={"Idempotency-Key": once})

    def change(self, path: str, body: Any, version: int) -> Any:
        """Change what is still at `version`. Raises Refused."""
        return self._send("PATCH", path, json=body, headers=_if_match(version))

    def delete(self, path: str, version: int) -> None:
        """Delete what is still at `version`. Raises Refused."""
        self._send("DELETE", path, headers=_if_match(version))

    def _send(self, method: str, path: str, **more: Any) -> Any:
        """Send until it is answered: again after a limit, and after nothing came back.

        What was sent again may have been done the first time: a DELETE then finds nothing, and a PATCH another version.
        The one is what was wanted; of the other the code is `unsure`, since somebody else may have been there.
        """
        failures, waits, was_cut = 0, 0, False
        while True:
            answer = self._try(method, path, **more)
            if isinstance(answer, _Unanswered):
                was_cut = True
                failure = Refused(
                    0, "unreachable", f"{self.settings.api_url} does not answer: {_reason(answer.error)}."
                )
            elif answer.status_code < 300:
                return _json(answer) if answer.content else None
            elif was_cut and method == "DELETE" and answer.status_code == 404:
                return None
            elif was_cut and method == "PATCH" and answer.status_code == 412:
                raise Refused(
                    412, "unsure", "The connection broke, so that it may have been changed or not. Apply again."
                )
            else:
                failure = _refusal(answer)
            wait = _wait_seconds(answer, failure)
            if wait is not None and waits < MOST_WAITS and wait <= LONGEST_WAIT_SECONDS:
                waits += 1
                self.say(f"The API asks us to wait {wait:g} s.")
                self.pause(wait)
            elif failure.status in _BUSY | {0} and failures < len(WAITS_SECONDS):
                was_cut = was_cut or failure.status != 503
                self.say(f"{failure.detail} Trying again.")
                self.pause(WAITS_SECONDS[failures] * (1 + self.spread()))
                failures += 1
            else:
                raise failure

    def _try(self, method: str, path: str, **more: Any) -> "requests.Response | _Unanswered":
        try:
            return self._session.request(
                method,
                self.settings.api_url + path,
                auth=_Bearer(self.settings.api_key),
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                **more,
            )
        except requests.RequestException as error:
            return _Unanswered(error)


def _if_match(version: int) -> dict[str, str]:
    # The API compares the version alone; what follows the dot is a hash of what is shown.
    return {"If-Match": f'"{version}.0"'}


def _wait_seconds(answer: "requests.Response | _Unanswered", failure: Refused) -> float | None:
    if isinstance(answer, _Unanswered):
        return None
    if failure.code == "idempotency_key_in_use":
        return WAITS_SECONDS[1]
    if failure.status != 429:
        return None
    text = answer.headers.get("Retry-After", "")
    return max(1.0, float(text)) if text.isascii() and text.isdigit() and len(text) < 7 else WAITS_SECONDS[-1]


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except requests.JSONDecodeError:
        words = "It answers, but not as the API does. Is TOCSIN_URL right?"
        raise Refused(answer.status_code, "not_the_api", words) from None


def _refusal(answer: requests.Response) -> Refused:
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        where = f" It points to {answer.headers['Location']}." if "Location" in answer.headers else ""
        words = f"It answers {answer.status_code}, and not as the API does. Is TOCSIN_URL right?{where}"
        return Refused(answer.status_code, "not_the_api", words)
    faults = problem.get("errors") or []
    fields = tuple(WrongField(str(each.get("pointer")), str(each.get("detail"))) for each in faults)
    detail = str(problem.get("detail") or problem.get("title"))
    if answer.status_code >= 500 and "request_id" in problem:
        detail = f"{detail} (request {problem['request_id']})"
    return Refused(answer.status_code, str(problem["code"]), detail, fields)


def _reason(error: Exception) -> str:
    if isinstance(error, requests.ConnectTimeout | requests.ReadTimeout):
        return "it takes too long"
    return "the connection was refused, or broke" if isinstance(error, requests.ConnectionError) else str(error)
