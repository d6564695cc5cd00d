"""A ping in FastAPI, done well: one shared supabase client, one call of the same database function, nothing else.

It keeps what ours keeps of a ping, and has none of what ours does besides: no limits, no log line, no body that is cut,
no slugs and keys, no numbers.

    uvicorn --loop uvloop --http httptools --no-access-log benchmarks.peers.fastapi_ping:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
from fastapi import FastAPI, Request, Response
from postgrest import AsyncPostgrestClient

SUPABASE_URL = os.environ["SUPABASE_URL"]
SUPABASE_KEY = os.environ["SUPABASE_PUBLISHABLE_KEY"]


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Hold the shared client: nobody's identity is in it, so that all requests may use one."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(limits=limits, timeout=10) as pool:
        headers = {"apikey": SUPABASE_KEY}
        application.state.database = AsyncPostgrestClient(f"{SUPABASE_URL}/rest/v1", headers=headers, http_client=pool)
        yield


app = FastAPI(lifespan=lifespan)


@app.api_route("/ping/{ping_id}", methods=["GET", "POST"])
async def ping(request: Request, ping_id: UUID) -> Response:
    """Send it on, and answer."""
    body = await request.body()
    arguments = {
        "ping_id": str(ping_id),
        "slug": None,
        "create_missing": False,
        "kind": "success",
        "exit_status": None,
        "rid": request.query_params.get("rid"),
        "method": request.method,
        "remote_ip": request.client.host if request.client else None,
        "user_agent": request.headers.get("user-agent"),
        "body": body.decode("utf-8", "replace") or None,
        "metrics": None,
    }
    await request.app.state.database.rpc("ping", arguments).execute()
    return Response("OK", media_type="text/plain")
