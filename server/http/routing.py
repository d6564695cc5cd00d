"""The one way of a request through the API: who, what, rule, store, answer.

A feature declares its routes with `Feature`; each declaration says what the route takes and answers, and is at the same
time the route's entry in the OpenAPI document and in the tests' inventory. A route is closed unless it says `@public`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Flask, request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from server.data.auth_api import AuthApi
from server.data.clients import Database, Supabase
from server.data.jwks import JwksSnapshot
from server.egress import Egress
from server.errors import AppError, NotAcceptable
from server.http.parsing import JSON_TYPES, PATCH_TYPES, parse_body, parse_query, read_body
from server.http.replies import JSON, Reply, etag, expected_version, matches
from server.http.tokens import Claims, Verifier, bearer_token
from server.http.wsgi import Answer
from server.settings import Settings

Handler = TypeVar("Handler", bound=Callable[..., Reply])


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with; made once in `create_app`, passed on, never global."""

    settings: Settings
    supabase: Supabase
    verifier: Verifier
    auth_api: AuthApi
    jwks: JwksSnapshot | None
    egress: Egress
    metrics: CollectorRegistry
    openapi_document: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a signed-in user. `version` is what If-Match insists on, None where it does not."""

    user: Claims
    access_token: str = field(repr=False)
    database: Database
    services: Services
    version: int | None


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route is, takes and answers."""

    method: str
    path: str
    handler: Callable[..., Reply]
    tag: str
    status: int
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answers: type[BaseModel] | None
    list_of: type[BaseModel] | None
    refusals: tuple[type[AppError], ...]
    content_type: str
    is_elsewhere: bool = False  # served by the stream process; here is a redirect to it

    @property
    def name(self) -> str:
        """The operation's id, unique in the API: the handler's name."""
        return self.handler.__name__

    @property
    def is_public(self) -> bool:
        """True where nobody is asked who they are."""
        return getattr(self.handler, "__public__", False)


def public(handler: Handler) -> Handler:
    """Open a route to everybody. Its handler gets the services alone: there is no user, and no database."""
    handler.__public__ = True  # type: ignore[attr-defined]  # read by Operation.is_public
    return handler


class Feature:
    """The routes of one resource."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.operations: list[Operation] = []

    def route(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        answers: type[BaseModel] | None = None,
        list_of: type[BaseModel] | None = None,
        refusals: tuple[type[AppError], ...] = (),
        content_type: str = JSON,
        is_elsewhere: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare a route: `body` and `query` are what it takes, `answers` or `list_of` what it answers."""

        def declare(handler: Handler) -> Handler:
            self.operations.append(
                Operation(
                    method,
                    path,
                    handler,
                    self.tag,
                    status,
                    body,
                    query,
                    answers,
                    list_of,
                    refusals,
                    content_type,
                    is_elsewhere,
                )
            )
            return handler

        return declare


def register(app: Flask, operation: Operation, services: Services) -> None:
    """Put one operation on the app."""
    view = _public_view(operation, services) if operation.is_public else _closed_view(operation, services)
    app.add_url_rule(operation.path, operation.name, view, methods=[operation.method], provide_automatic_options=False)


def _closed_view(operation: Operation, services: Services) -> Callable[..., Answer]:
    handler, read_input = operation.handler, _input_reader(operation, services)
    verify, as_user = services.verifier.verify, services.supabase.as_user
    writes = operation.method != "GET"

    def view(**path: Any) -> Answer:
        environ = request.environ
        environ["tocsin.route"] = operation.path
        token = bearer_token([environ["HTTP_AUTHORIZATION"]] if "HTTP_AUTHORIZATION" in environ else [])
        claims = verify(token, time.time())
        environ["tocsin.user_id"] = claims.user_id
        _require_acceptable(operation, environ)
        given = read_input(environ)
        version = expected_version(environ.get("HTTP_IF_MATCH")) if writes else None
        call = Call(claims, token, as_user(token, environ["tocsin.request_id"]), services, version)
        return respond(handler(call, **path, **given), environ)

    return view


def _public_view(operation: Operation, services: Services) -> Callable[..., Answer]:
    handler, read_input = operation.handler, _input_reader(operation, services)

    def view(**path: Any) -> Answer:
        environ = request.environ
        environ["tocsin.route"] = operation.path
        _require_acceptable(operation, environ)
        return respond(handler(services, **path, **read_input(environ)), environ)

    return view


def _input_reader(operation: Operation, services: Services) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what reads a request's input into the handler's keyword arguments."""
    body, query = operation.body, operation.query
    default_query = {"query": query.model_validate({})} if query and not _has_required(query) else None
    accepted = PATCH_TYPES if operation.method == "PATCH" else JSON_TYPES
    context = {"egress": services.egress}

    def read(environ: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if query is None:
            if environ["QUERY_STRING"]:
                parse_query(_NoParameters, dict(request.args.lists()))
        elif default_query is not None and not environ["QUERY_STRING"]:
            given = dict(default_query)
        else:
            given["query"] = parse_query(query, dict(request.args.lists()))
        if body is not None:
            raw = read_body(environ)
            given["body"] = parse_body(body, raw, request.content_type, accepted=accepted, context=context)
        return given

    return read


class _NoParameters(BaseModel, extra="forbid"):
    pass


def _has_required(model: type[BaseModel]) -> bool:
    return any(field_info.is_required() for field_info in model.model_fields.values())


def _require_acceptable(operation: Operation, environ: dict[str, Any]) -> None:
    accept, media_type = environ.get("HTTP_ACCEPT"), operation.content_type.partition(";")[0]
    if accept in {None, "", "*/*", media_type} or media_type == "*/*":
        return
    # Parameters do not count: who accepts text/plain accepts it in UTF-8, and in any version of the metrics' format.
    accepted = {range_.partition(";")[0].strip().lower() for range_, quality in request.accept_mimetypes if quality}
    if accepted.isdisjoint({media_type, media_type.partition("/")[0] + "/*", "*/*"}):
        raise NotAcceptable(f"This path answers with {media_type}.")


def respond(reply: Reply, environ: dict[str, Any]) -> Answer:
    """Turn a reply into the response: validators, 304, and what caches may do with it."""
    headers = [("Content-Type", reply.content_type), *reply.headers.items()]
    if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
        headers.append(("Cache-Control", "no-store"))
        if reply.version is not None:
            headers.append(("ETag", etag(reply)))
        return Answer(reply.body, reply.status, headers[1:] if reply.status == 204 else headers)
    validator = etag(reply)
    headers += [("ETag", validator), ("Vary", "Authorization")]
    if "Cache-Control" not in reply.headers:
        headers.append(("Cache-Control", "private, no-cache"))
    seen = environ.get("HTTP_IF_NONE_MATCH")
    if seen is not None and matches(seen, validator):
        return Answer(b"", 304, headers[1:])
    return Answer(reply.body, reply.status, headers)
