"""The async peer given the same cuts as ours: verified tokens remembered, pyreqwest under supabase-py's query builder,
and the answer's bytes passed on unparsed.

    uvicorn --loop uvloop --http httptools --no-access-log benchmarks.peers.fastapi_light:app
"""

import hashlib
import os
import time
from datetime import timedelta
from typing import Any

import jwt
from fastapi import FastAPI, Request, Response
from httpx import Headers, QueryParams
from postgrest import AsyncPostgrestClient
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.response import Response as UpstreamResponse

SUPABASE_URL = os.environ["SUPABASE_URL"]
SUPABASE_KEY = os.environ["SUPABASE_PUBLISHABLE_KEY"]
ISSUER = f"{SUPABASE_URL}/auth/v1"
MOST_TOKENS = 10_000

jwks = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")
verified: dict[bytes, int] = {}
app = FastAPI()


class LightSession:
    """What `AsyncPostgrestClient` asks of a session."""

    auth = None

    def __init__(self, client: Client) -> None:
        self._client = client

    async def request(
        self, method: str, url: str, *, content: Any, params: QueryParams, headers: Headers, auth: Any
    ) -> UpstreamResponse:
        """Send one request without a body; the answer has been read whole."""
        del content, auth
        return await self._client.request(method, f"{url}?{params}").headers(headers.multi_items()).build().send()


session = LightSession(
    ClientBuilder().no_proxy().follow_redirects(False).gzip(False).timeout(timedelta(seconds=10)).build()
)


def is_verified(token: str) -> bool:
    """Check a token, or remember that it was checked; its `exp` is looked at every time."""
    digest = hashlib.sha256(token.encode()).digest()
    expires_at = verified.get(digest)
    if expires_at is not None:
        return expires_at > time.time()
    try:
        key = jwks.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key.key, algorithms=["ES256"], audience="authenticated", issuer=ISSUER)
    except jwt.PyJWTError:
        return False
    if claims["role"] != "authenticated":
        return False
    if len(verified) >= MOST_TOKENS:
        del verified[next(iter(verified))]
    verified[digest] = claims["exp"]
    return True


@app.get("/v1/monitors")
async def list_monitors(request: Request) -> Response:
    """Verify, select as the user, answer."""
    authorization = request.headers.get("authorization", "")
    if not is_verified(authorization.removeprefix("Bearer ")):
        return Response(status_code=401)
    client = AsyncPostgrestClient(
        f"{SUPABASE_URL}/rest/v1",
        headers={"apikey": SUPABASE_KEY, "Authorization": authorization},
        http_client=session,  # type: ignore[arg-type]  # stands in for httpx.AsyncClient
    )
    query = client.from_("monitors").select("*").order("created_at", desc=True).order("id", desc=True).limit(51)
    answer: Any = await query.request.send(Headers())
    if answer.status != 200:
        return Response(status_code=503)
    rows = bytes(await answer.bytes())
    return Response(b'{"data":' + rows + b',"next_cursor":null}', media_type="application/json")
