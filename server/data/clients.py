"""The door to PostgREST: one shared pool of connections, and one immutable client for each request.

A client carries its caller's token from the first line to the last: nothing here can change whom it speaks for
(SUPABASE.md: a shared client with `.auth(token)` answered 594 of 1,200 requests under a foreign identity).
"""

from contextlib import suppress
from typing import Any, Protocol

from httpx import Headers
from postgrest import SyncPostgrestClient

from server.data.failures import is_transient, read_problem, refusal
from server.data.transport import UpstreamAnswer, UpstreamSession
from server.errors import Forbidden


class Query(Protocol):
    """Whatever supabase-py's builder gives back: a select, an insert, an update, a delete, an RPC, with its filters."""

    @property
    def request(self) -> Any:
        """The request that the builder has put together."""


class Database:
    """Supabase Postgres as one caller sees it: row-level security decides what that is."""

    __slots__ = ("_client",)

    def __init__(self, session: UpstreamSession, url: str, headers: dict[str, str]) -> None:
        self._client = SyncPostgrestClient(
            url,
            headers=headers,
            http_client=session,  # type: ignore[arg-type]  # stands in for httpx.Client; pinned by a contract test
            retry_enabled=False,  # it would sleep 1 + 2 + 4 s inside a server thread
        )

    def table(self, name: str) -> Any:
        """Start a query of a table or view with supabase-py's builder."""
        return self._client.from_(name)

    def rpc(self, function: str, arguments: dict[str, Any], *, read_only: bool = False) -> Any:
        """Start a call of a function; `read_only` sends it as a GET, in a read-only transaction."""
        return self._client.rpc(function, arguments, get=read_only)

    def execute(self, query: Query) -> bytes:
        """Send a query and return the JSON body of the answer.

        One upstream call; a second one where the first lost a race inside Postgres (serialization failure, deadlock),
        which is rolled back there and safe to repeat. Raises an AppError for anything but success.
        """
        answer = self._send(query)
        if answer.is_success:
            return answer.content
        problem = read_problem(answer.content)
        if is_transient(problem):
            answer = self._send(query)
            if answer.is_success:
                return answer.content
            problem = read_problem(answer.content)
        raise refusal(answer.status_code, problem)

    def _send(self, query: Query) -> UpstreamAnswer:
        # builder.execute() would parse the body with the slow json module and drop the status on an error, so the
        # request goes out by the builder's own send(), one step below.
        answer: UpstreamAnswer = query.request.send(Headers())
        return answer


class Supabase:
    """Makes the client of each request. Holds the publishable key, which is no secret; never the secret one."""

    def __init__(self, session: UpstreamSession, supabase_url: str, publishable_key: str) -> None:
        self._session = session
        self._rest_url = f"{supabase_url}/rest/v1"
        self._publishable_key = publishable_key

    def as_user(self, access_token: str, request_id: str) -> Database:
        """Return the database as the bearer of this token sees it."""
        return Database(
            self._session,
            self._rest_url,
            {
                "apikey": self._publishable_key,
                "Authorization": f"Bearer {access_token}",
                "X-Request-ID": request_id,
                "Accept": "application/json",
            },
        )

    def is_reachable(self) -> bool:
        """Tell whether PostgREST and Postgres answer. Raises an AppError where they do not, or the key is wrong."""
        stranger = Database(self._session, self._rest_url, {"apikey": self._publishable_key})
        with suppress(Forbidden):  # a stranger may read nothing, and only a working database says so
            stranger.execute(stranger.table("organisations").select("id").limit(1))
        return True
