"""The async peer, done well: FastAPI, one shared Supabase client, and the caller's token on a builder of each request.

The shared client's connections are used by one `AsyncPostgrestClient` a request: `client.postgrest.auth(token)` on the
shared object would change the identity of the requests beside it.

    uvicorn --loop uvloop --http httptools --no-access-log benchmarks.peers.fastapi_shared:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import jwt
import orjson
from fastapi import FastAPI, Request, Response
from postgrest import AsyncPostgrestClient
from supabase import AsyncClientOptions, acreate_client

SUPABASE_URL = os.environ["SUPABASE_URL"]
SUPABASE_KEY = os.environ["SUPABASE_PUBLISHABLE_KEY"]
ISSUER = f"{SUPABASE_URL}/auth/v1"

jwks = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Hold the shared client, and know the keys before the first request."""
    jwks.get_signing_keys()
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(limits=limits, timeout=10) as pool:
        options = AsyncClientOptions(httpx_client=pool)
        application.state.supabase = await acreate_client(SUPABASE_URL, SUPABASE_KEY, options=options)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/v1/monitors")
async def list_monitors(request: Request) -> Response:
    """Verify, select as the user, answer."""
    authorization = request.headers.get("authorization", "")
    token = authorization.removeprefix("Bearer ")
    try:
        key = jwks.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key.key, algorithms=["ES256"], audience="authenticated", issuer=ISSUER)
    except jwt.PyJWTError:
        return Response(status_code=401)
    if claims["role"] != "authenticated":
        return Response(status_code=401)
    client = AsyncPostgrestClient(
        f"{SUPABASE_URL}/rest/v1",
        headers={"apikey": SUPABASE_KEY, "Authorization": authorization},
        http_client=request.app.state.supabase.postgrest.session,
    )
    query = client.from_("monitors").select("*").order("created_at", desc=True).order("id", desc=True).limit(51)
    answer = await query.execute()
    return Response(orjson.dumps({"data": answer.data, "next_cursor": None}), media_type="application/json")
