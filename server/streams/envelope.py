"""What is true of every exchange of this process, as `server/http/envelope.py` has it for the API."""

import logging
import time
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import AppError
from server.http.envelope import CONTENT_POLICY, PREFLIGHT, SECURITY_HEADERS, cross_origin_headers, request_id_from
from server.http.problem_document import note_refusal, problem, problem_headers
from server.logs import AccessLog
from server.streams.asking import header_values

_LONGEST_PATH_NOTED = 500
log = logging.getLogger("tocsin.errors")


class StreamEnvelope:
    """Wraps an ASGI app: request id, CORS, security headers, problems, and a log line when the exchange has ended."""

    def __init__(self, app: ASGIApp, origins: frozenset[str], access_log: AccessLog) -> None:
        self._app = app
        self._origins = origins
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = request_id_from(next(iter(header_values(scope, b"x-request-id")), None))
        scope["tocsin.request_id"] = request_id
        headers = self._headers(scope, request_id)
        status = 0

        async def send_enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.http.response.start", "websocket.accept"}:
                status = message.get("status", 101)
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        try:
            if not await self._answer_preflight(scope, send_enveloped):
                await self._app(scope, receive, send_enveloped)
        except AppError as error:
            if status:
                raise
            note_refusal(error, request_id)
            await _refuse(error, scope, send_enveloped)
        except Exception as error:
            if status or isinstance(error, OSError):  # it has begun, or the client has gone
                raise
            log.exception("unhandled", extra={"request_id": request_id})
            await _refuse(AppError(), scope, send_enveloped)
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _headers(self, scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [CONTENT_POLICY, *SECURITY_HEADERS, ("X-Request-ID", request_id)]
        for origin in header_values(scope, b"origin")[:1]:
            headers += cross_origin_headers(origin, self._origins)
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]

    async def _answer_preflight(self, scope: Scope, send: Send) -> bool:
        asked = header_values(scope, b"access-control-request-method")
        if scope["type"] != "http" or scope["method"] != "OPTIONS" or not asked:
            return False
        allowed = self._origins.issuperset(header_values(scope, b"origin")) and header_values(scope, b"origin")
        headers = [(name.lower().encode(), value.encode()) for name, value in PREFLIGHT] if allowed else []
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return True

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        if not self._access_log.is_on:
            return
        line: dict[str, object] = {
            "request_id": scope["tocsin.request_id"],
            "method": scope.get("method", "WEBSOCKET")[:20],
            "path": scope["path"][:_LONGEST_PATH_NOTED],
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
        }
        if "tocsin.principal_id" in scope:
            line["principal_id"] = scope["tocsin.principal_id"]
        self._access_log.note(line)


async def _refuse(error: AppError, scope: Scope, send: Send) -> None:
    """Answer with the problem; to a WebSocket's handshake too (ASGI: the denial response)."""
    prefix = "http.response"
    if scope["type"] == "websocket":
        prefix = "websocket.http.response"
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
            return
    headers: list[tuple[bytes, bytes]] = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in problem_headers(error, has_authorization=bool(header_values(scope, b"authorization")))
    ]
    document: Any = problem(error, scope["tocsin.request_id"])
    await send({"type": f"{prefix}.start", "status": error.status, "headers": headers})
    await send({"type": f"{prefix}.body", "body": orjson.dumps(document)})
