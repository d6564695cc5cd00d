"""The least that a Flask route can do with our door to Supabase: it verifies nothing and logs nothing.

Served by each WSGI server in turn in benchmarks/transport.py.
"""

import os

from flask import Flask, Response, request

from server.data.clients import Supabase
from server.data.queries import compiled, table
from server.data.transport import UpstreamSession

app = Flask(__name__, static_folder=None)
supabase = Supabase(UpstreamSession(), os.environ["SUPABASE_URL"], os.environ["SUPABASE_PUBLISHABLE_KEY"])
newest = compiled(table("monitors").select("*").order("created_at", desc=True).order("id", desc=True).limit(51))


@app.get("/v1/monitors")
def list_monitors() -> Response:
    """Select as whoever asks, answer with the bytes that came."""
    token = request.headers["Authorization"].removeprefix("Bearer ")
    rows = supabase.as_user(token, "benchmark").execute(newest)
    return Response(b'{"data":' + rows + b',"next_cursor":null}', content_type="application/json")
