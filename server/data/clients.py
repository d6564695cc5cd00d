"""The door to Supabase Postgres: one shared pool of connections, and one immutable client for each request.

A client carries its caller's token from the first line to the last, and nothing here can change whom it speaks for. (A
shared supabase-py client with `.auth(token)` answered 594 of 1,200 requests under a foreign identity.)
"""

from typing import Any

from server.data.failures import is_success, is_transient, read_problem, refusal
from server.data.queries import Once, Statement, call, compiled, once, table
from server.data.transport import UpstreamAnswer, UpstreamSession
from server.errors import NotFound

_NO_ROWS = b"[]"
_NOTHING = (_NO_ROWS, b"null")  # of a table, and of a function


class Database:
    """Supabase Postgres as one caller sees it: row-level security decides what that is."""

    __slots__ = ("_identity", "_once", "_rest_url", "_session")

    def __init__(
        self,
        session: UpstreamSession,
        rest_url: str,
        identity: tuple[tuple[str, str], ...],
        once: Once | None = None,
    ) -> None:
        self._session = session
        self._rest_url = rest_url
        self._identity = identity
        self._once = once

    def execute(self, query: Any) -> bytes:
        """Send a query in the caller's name and return the JSON body of the answer.

        `query` is a Statement, or a query of the builder as it stands. Where the request came with an Idempotency-Key,
        the call of a function is its write: it commits together with the key, and a repetition gets the first answer.

        One upstream call; a second one where the first lost a race inside Postgres (serialization failure, deadlock),
        which is rolled back there and safe to repeat. Raises an AppError for anything but success.
        """
        statement = query if isinstance(query, Statement) else compiled(query)
        if self._once is not None:
            statement = once(statement, self._once)
        answer = self._send(statement)
        if is_success(answer.status, answer.content):
            return answer.content
        problem = read_problem(answer.content)
        if is_transient(problem):
            answer = self._send(statement)
            if is_success(answer.status, answer.content):
                return answer.content
            problem = read_problem(answer.content)
        raise refusal(answer.status, problem)

    def execute_one(self, query: Any) -> bytes:
        """Send a query for one row and return it as a one-element JSON array.

        Raises NotFound where there is no such row, or none that the caller may see: the two look alike.
        """
        rows = self.execute(query)
        if rows == _NO_ROWS:
            raise NotFound
        return rows

    def execute_if_it_stands(self, query: Any) -> bytes | None:
        """Send a conditional write; return the row as the database answered it, None where none met the condition."""
        rows = self.execute(query)
        return None if rows in _NOTHING else rows

    def recall(self) -> bytes | None:
        """Return what the request's write answered when it was made before; None where it was not, or has no key."""
        if self._once is None:
            return None
        arguments = {"key": self._once.key, "fingerprint": self._once.fingerprint}
        answer = Database(self._session, self._rest_url, self._identity).execute(call("recall_answer", arguments))
        return None if answer == b"null" else answer

    def _send(self, statement: Statement) -> UpstreamAnswer:
        return self._session.send(
            statement.method,
            self._rest_url + statement.target,
            statement.headers + self._identity,
            statement.content,
        )


class Supabase:
    """Makes the client of each request. Holds the publishable key, which is no secret; never the secret one."""

    def __init__(self, session: UpstreamSession, supabase_url: str, publishable_key: str) -> None:
        self._session = session
        self._rest_url = f"{supabase_url}/rest/v1"
        self._publishable_key = publishable_key

    def as_user(self, access_token: str, request_id: str, once: Once | None = None) -> Database:
        """Return the database as the bearer of this token sees it."""
        identity = (
            ("apikey", self._publishable_key),
            ("Authorization", f"Bearer {access_token}"),
            ("X-Request-ID", request_id),
        )
        return Database(self._session, self._rest_url, identity, once)

    def as_key(self, secret: str, request_id: str, once: Once | None = None) -> Database:
        """Return the database as the holder of this API key sees it: row-level security knows keys."""
        identity = (("apikey", self._publishable_key), ("X-Tocsin-Key", secret), ("X-Request-ID", request_id))
        return Database(self._session, self._rest_url, identity, once)

    def as_nobody(self, request_id: str) -> Database:
        """Return the database as somebody without a token or key sees it: what is granted to all the world."""
        return Database(
            self._session, self._rest_url, (("apikey", self._publishable_key), ("X-Request-ID", request_id))
        )

    def is_reachable(self) -> bool:
        """Tell whether PostgREST and Postgres answer. Raises an AppError where they do not, or the key is wrong."""
        stranger = Database(self._session, self._rest_url, (("apikey", self._publishable_key),))
        return stranger.execute(table("organisations").select("id").limit(1)).startswith(b"[")
