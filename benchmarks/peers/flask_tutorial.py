"""The peer that most tutorials show: Flask, a Supabase client made for each request, PyJWT's own JWKS client.

gunicorn --worker-class gthread --threads 16 benchmarks.peers.flask_tutorial:app
"""

import os

import jwt
from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from supabase import create_client

SUPABASE_URL = os.environ["SUPABASE_URL"]
SUPABASE_KEY = os.environ["SUPABASE_PUBLISHABLE_KEY"]
ISSUER = f"{SUPABASE_URL}/auth/v1"

app = Flask(__name__)
jwks = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")


@app.get("/v1/monitors")
def list_monitors() -> ResponseReturnValue:
    """Verify, select as the user, answer."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        key = jwks.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key.key, algorithms=["ES256"], audience="authenticated", issuer=ISSUER)
    except jwt.PyJWTError:
        return Response(status=401)
    if claims["role"] != "authenticated":
        return Response(status=401)
    client = create_client(SUPABASE_URL, SUPABASE_KEY)
    client.postgrest.auth(token)
    query = client.table("monitors").select("*").order("created_at", desc=True).order("id", desc=True).limit(51)
    return jsonify(data=query.execute().data, next_cursor=None)
