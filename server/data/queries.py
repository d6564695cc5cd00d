"""What to ask PostgREST, written with supabase-py's query builder, and knowing nothing of who asks.

A query is compiled once into a `Statement`, and any caller may execute it: identity is added when it is sent
(`data/clients.py`). So statements can be remembered like prepared ones, which saves a fifth of a read's CPU
(docs/decisions.md), and nothing that is remembered can carry a token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from httpx import Headers, QueryParams
from postgrest import SyncPostgrestClient

_ORIGIN: Final = "http://postgrest"
_FUNCTIONS: Final = "/rpc/"
_ANY_SPECIAL = re.compile(r"[!-/:-@\[-`{-~]")


@dataclass(frozen=True, slots=True)
class Statement:
    """One request to PostgREST: `target` is path and query; `headers` are the builder's own, such as Prefer."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    content: bytes | None


class _Compiler:
    """Stands where the builder expects an httpx.Client, and returns the request instead of sending it.

    tests/http/test_queries.py pins what the builder asks of it.
    """

    auth = None

    def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None,
        params: QueryParams,
        headers: Headers,
        auth: object,
    ) -> Statement:
        """Return the request; the signature is httpx.Client.request's, as far as the builder uses it."""
        target = url.removeprefix(_ORIGIN)
        return Statement(method, f"{target}?{params}" if params else target, tuple(headers.multi_items()), content)


_client = SyncPostgrestClient(
    _ORIGIN,
    headers={},
    http_client=_Compiler(),  # type: ignore[arg-type]  # stands in for httpx.Client
    retry_enabled=False,
)
del _client.headers["X-Client-Info"]


def table(name: str) -> Any:
    """Start a query of a table or view with supabase-py's builder."""
    return _client.from_(name)


def call(function: str, arguments: dict[str, Any]) -> Statement:
    """Return the call of a database function."""
    return compiled(_client.rpc(function, arguments))


@dataclass(frozen=True, slots=True)
class Once:
    """An Idempotency-Key, and the fingerprint of the request that it came with."""

    key: str
    fingerprint: str


def once(statement: Statement, under: Once) -> Statement:
    """Return the same call of a function, made so that its answer is kept under the key, in its own transaction.

    Anything but a call of a function comes back as it is.
    """
    if not statement.target.startswith(_FUNCTIONS):
        return statement
    arguments = {
        "key": under.key,
        "fingerprint": under.fingerprint,
        "function": statement.target.removeprefix(_FUNCTIONS),
        "arguments": orjson.Fragment(statement.content or b"{}"),
    }
    return Statement(statement.method, f"{_FUNCTIONS}once", statement.headers, orjson.dumps(arguments))


def one_of(query: Any, column: str, values: Sequence[str]) -> Any:
    """Keep the rows that have one of these values: at least one, from a set of our own, so none needs quoting."""
    return query.eq(column, values[0]) if len(values) == 1 else query.filter(column, "in", f"({','.join(values)})")


def holding(query: Any, column: str, text: str) -> Any:
    """Keep the rows whose column holds a text, in upper or lower case, whatever characters it is made of.

    By a regular expression with each character that could mean something escaped; `ilike` would not do, since PostgREST
    takes every asterisk there for a wildcard, and leaves no way to mean the asterisk.
    """
    # Between two empty groups, since the embedded Supabase takes a bare `null` or `true` for more than a text.
    escaped = _ANY_SPECIAL.sub(r"\\\g<0>", text)
    return query.filter(column, "imatch", f"(){escaped}()")


# For functions that build the statements of what clients ask again and again: their arguments are few and hashable.
remembered = lru_cache(maxsize=4096)


def compiled(query: Any) -> Statement:
    """Return what a query of the builder asks, ready to be executed by anybody, any number of times."""
    # The builder's own execute() would parse the body with the slow json module and drop the status of an error; its
    # send(), one step below, hands the finished request to the session.
    statement: Statement = query.request.send(Headers())
    return statement
