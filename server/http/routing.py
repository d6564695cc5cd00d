"""The one way of a request through the API: who, what, rule, store, answer.

A feature declares its routes with `Feature`; each declaration says what the route takes and answers, and is at the same
time the route's entry in the OpenAPI document and in the tests' inventory. A route is closed unless it says `@public`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from flask import Flask, request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from server.data.api_keys import ApiKey
from server.data.auth_api import AuthApi
from server.data.clients import Database, Supabase
from server.data.counters import SharedCounters
from server.data.failures import read_answer
from server.data.jwks import JwksSnapshot
from server.data.queries import Once
from server.egress import Egress
from server.errors import (
    AppError,
    Conflict,
    Forbidden,
    NotAcceptable,
    NotFound,
    PreconditionFailed,
    Unauthenticated,
)
from server.features.keys.rules import Scope
from server.http.idempotency import read_once
from server.http.limits import Limiter, Tier
from server.http.parsing import JSON_TYPES, PATCH_TYPES, parse_body, parse_query, read_body, refuse_credentials
from server.http.principals import Door, Principal, principal_id, require_scope
from server.http.problem_document import note_refusal
from server.http.replies import JSON, Reply, etag, expected_version, hash_of, held, nothing, one, salt_of
from server.http.tokens import Claims, bearer_token
from server.http.wsgi import TEXT, Answer, Download
from server.settings import Settings

Handler = TypeVar("Handler", bound=Callable[..., Reply | Answer])


@dataclass(frozen=True, slots=True)
class Services:
    """What routes work with; made once in `create_app`, passed on, never global."""

    settings: Settings
    supabase: Supabase
    door: Door
    auth_api: AuthApi
    jwks: JwksSnapshot | None
    egress: Egress
    limits: Limiter
    redis: SharedCounters | None
    metrics: CollectorRegistry
    openapi_document: bytes
    derive_secret: Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """One request of somebody who is known.

    `version` is what If-Match insists on, `once` the Idempotency-Key; None where there is none. `media_type` is
    what the caller would best like of what the route answers with.
    """

    principal: Principal
    access_token: str = field(repr=False)
    database: Database
    services: Services
    version: int | None
    once: Once | None
    media_type: str = JSON

    @property
    def user(self) -> Claims:
        """The signed-in user. Raises Forbidden where an API key asks."""
        if isinstance(self.principal, ApiKey):
            require_scope(self.principal, None)
        assert isinstance(self.principal, Claims)
        return self.principal


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route is, takes and answers."""

    method: str
    path: str
    handler: Callable[..., Any]  # a Reply; an Answer where it `says`
    tag: str
    status: int
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    answers: type[BaseModel] | None
    list_of: type[BaseModel] | None
    refusals: tuple[type[AppError], ...]
    content_type: str
    limit: Tier | None
    files: Mapping[str, str] = field(default_factory=dict)  # media types of a file to download, with how it begins
    also: Mapping[str, str] = field(default_factory=dict)  # media types beside JSON, with how such an answer begins
    users_only: bool = False
    is_elsewhere: bool = False  # served by the stream process; here is a redirect to it
    example: Any = None  # an answer in the OpenAPI document, where no model has one
    says: Mapping[int, str] = field(default_factory=dict)  # a protocol of others: its words in plain text, by status

    @property
    def key_scope(self) -> Scope | None:
        """What an API key needs for this route; None where no key may."""
        if self.users_only or self.is_public:
            return None
        return Scope.READ if self.method == "GET" else Scope.WRITE

    @property
    def name(self) -> str:
        """The operation's id, unique in the API: the handler's name."""
        by_post = "_by_post" if self.says and self.method == "POST" else ""  # one handler is both
        return self.handler.__name__ + by_post

    @property
    def is_public(self) -> bool:
        """True where nobody is asked who they are."""
        return is_public(self.handler)


def _tier_of(method: str, handler: Callable[..., Any]) -> Tier:
    if is_public(handler):
        return "public"
    return "ordinary" if method == "GET" else "write"


def is_public(handler: Callable[..., Any]) -> bool:
    """Tell whether a handler was declared `@public`."""
    return getattr(handler, "__public__", False)


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
        limit: Tier | Literal["by kind"] | None = "by kind",
        files: Mapping[str, str] | None = None,
        also: Mapping[str, str] | None = None,
        users_only: bool = False,
        is_elsewhere: bool = False,
        example: Any = None,
        says: Mapping[int, str] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare a route: `body` and `query` are what it takes, `answers` or `list_of` what it answers.

        `limit` is the tier that it counts under; left out: `public`, `ordinary` or `write`, by what the route is. None:
        it is not limited. `files` are the media types of a file to download, where it answers with one
        (`Reply.download`), each with how such a file begins; `also` those in which it answers too, where
        `Call.media_type` says so. `users_only`: an API key, whatever its scopes, is refused.
        `says` makes it a route of a protocol that is not ours: its handler gets the services and the WSGI environ, and
        answers with an Answer; refusals too are put in the protocol's words, by their status. What `query` takes is
        then for the document alone.
        """

        def declare(handler: Handler) -> Handler:
            tier = _tier_of(method, handler) if limit == "by kind" else limit
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
                    "*/*" if files else content_type,
                    tier,
                    files or {},
                    also or {},
                    users_only,
                    is_elsewhere,
                    example,
                    says or {},
                )
            )
            return handler

        return declare


def register(app: Flask, operation: Operation, services: Services) -> None:
    """Put one operation on the app."""
    make = _foreign_view if operation.says else _public_view if operation.is_public else _closed_view
    view = make(operation, services)
    app.add_url_rule(operation.path, operation.name, view, methods=[operation.method], provide_automatic_options=False)


def _closed_view(operation: Operation, services: Services) -> Callable[..., Answer | Download]:
    handler, read_input = operation.handler, _input_reader(operation, services)
    door, limits, key_scope = services.door, services.limits, operation.key_scope
    writes, is_post = operation.method != "GET", operation.method == "POST"
    salt = salt_of(services.openapi_document)

    def view(**path: Any) -> Answer | Download:
        environ = request.environ
        environ["tocsin.route"] = operation.path
        if environ["QUERY_STRING"]:
            refuse_credentials(request.args)
        request_id = environ["tocsin.request_id"]
        try:
            token = bearer_token([environ["HTTP_AUTHORIZATION"]] if "HTTP_AUTHORIZATION" in environ else [])
            principal = door.identify(token, request_id, partial(limits.refuse_spent, environ))
        except Unauthenticated:
            limits.admit_attempt(environ)
            raise
        caller = environ["tocsin.principal_id"] = principal_id(principal)
        limits.admit(environ, operation.limit, caller)
        if isinstance(principal, ApiKey):
            require_scope(principal, key_scope)
        media_type = _media_type_for(operation, environ)
        given = read_input(environ)
        once = _read_once(environ) if is_post else None
        # What cannot be read is said first: a precondition counts where all else is well (RFC 9110, 13.2.1).
        version = expected_version(environ.get("HTTP_IF_MATCH")) if writes else None
        call = Call(principal, token, door.open(token, request_id, once), services, version, once, media_type)
        try:
            reply = handler(call, **path, **given)
        except _AFTER_THE_FIRST_TRY:
            # Perhaps it is the first try itself that stands in the way of its repetition.
            first = call.database.recall()
            if first is None or not _tells_all(operation.answers, first):
                raise
            reply = one(operation.answers, first, status=operation.status) if operation.answers else nothing()
        return respond(reply, environ, salt)

    return view


def _public_view(operation: Operation, services: Services) -> Callable[..., Answer | Download]:
    handler, read_input = operation.handler, _input_reader(operation, services)
    salt = salt_of(services.openapi_document)

    def view(**path: Any) -> Answer | Download:
        environ = request.environ
        environ["tocsin.route"] = operation.path
        if environ["QUERY_STRING"]:
            refuse_credentials(request.args)
        services.limits.admit_address(environ, operation.limit)
        _media_type_for(operation, environ)
        return respond(handler(services, **path, **read_input(environ)), environ, salt)

    return view


def _foreign_view(operation: Operation, services: Services) -> Callable[..., Answer]:
    handler, says = operation.handler, operation.says

    def view(**path: Any) -> Answer:
        environ = request.environ
        environ["tocsin.route"] = operation.path
        try:
            services.limits.admit_address(environ, operation.limit)
            answer: Answer = handler(services, environ, **path)
        except AppError as error:
            note_refusal(error, environ["tocsin.request_id"])
            headers = [("Content-Type", TEXT), ("Cache-Control", "no-store"), ("Access-Control-Allow-Origin", "*")]
            if error.retry_after_seconds is not None:
                headers.append(("Retry-After", str(error.retry_after_seconds)))
            return Answer(says.get(error.status, error.title).encode(), error.status, headers)
        return answer

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
            raw = environ["tocsin.body"] = read_body(environ)
            given["body"] = parse_body(body, raw, request.content_type, accepted=accepted, context=context)
        return given

    return read


# How a repetition may be refused although its first try was not.
_AFTER_THE_FIRST_TRY = (NotFound, Forbidden, Conflict, PreconditionFailed)


def _tells_all(model: type[BaseModel] | None, first: bytes) -> bool:
    """Tell whether a first answer, as the database kept it, is all that the route answers with.

    It is not where a secret was added that is shown once: who may not do it any more is not shown that again.
    """
    if model is None:
        return True
    kept = read_answer(first)
    return isinstance(kept, dict) and kept.keys() >= model.model_fields.keys()


def _read_once(environ: dict[str, Any]) -> Once | None:
    return read_once(
        environ.get("HTTP_IDEMPOTENCY_KEY"),
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"],
        environ.get("tocsin.body", b""),
    )


class _NoParameters(BaseModel, extra="forbid"):
    pass


def _has_required(model: type[BaseModel]) -> bool:
    return any(field_info.is_required() for field_info in model.model_fields.values())


def _media_type_for(operation: Operation, environ: dict[str, Any]) -> str:
    """Return what the caller would best like of what a route answers with. Raises NotAcceptable."""
    accept, media_type = environ.get("HTTP_ACCEPT"), operation.content_type.partition(";")[0]
    if accept in {None, "", "*/*", media_type} or media_type == "*/*":
        return media_type
    # Parameters do not count: who accepts text/plain accepts it in UTF-8, and in any version of the metrics' format.
    accepted = [range_.partition(";")[0].strip().lower() for range_, quality in request.accept_mimetypes if quality]
    offered = (media_type, *operation.also)
    for range_ in accepted:  # the best liked first
        for each in offered:
            if range_ in {each, each.partition("/")[0] + "/*", "*/*"}:
                return each
    raise NotAcceptable(f"This path answers with {' or '.join(offered)}.")


def respond(reply: Reply, environ: dict[str, Any], salt: bytes) -> Answer | Download:
    """Turn a reply into the response: validators, 304, and what caches may do with it.

    A reader who holds what the database said is answered before anybody has read it. They can name it only because it
    was read and sent once; `*` names anything, so that there the answer is made first.
    """
    if reply.download is not None:
        headers = [("Content-Type", reply.content_type), *reply.headers.items(), ("Cache-Control", "no-store")]
        return Download(reply.download, reply.status, headers)
    if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
        return _respond_to_write(reply.rendered(), salt)
    hashed, seen = hash_of(reply, salt), environ.get("HTTP_IF_NONE_MATCH")
    tag = held(seen, hashed) if seen is not None else None
    is_held = tag is not None
    if tag is None:
        reply = reply.rendered()
        tag = etag(hashed, reply.version)
        is_held = seen is not None and seen.strip() == "*"
    headers = [*reply.headers.items(), ("ETag", tag), ("Vary", "Authorization")]
    if "Cache-Control" not in reply.headers:
        headers.append(("Cache-Control", "private, no-cache"))
    if is_held:
        return Answer(b"", 304, headers)
    return Answer(reply.body, reply.status, [("Content-Type", reply.content_type), *headers])


def _respond_to_write(reply: Reply, salt: bytes) -> Answer:
    headers = [*reply.headers.items(), ("Cache-Control", "no-store")]
    if reply.version is not None:
        headers.append(("ETag", etag(hash_of(reply, salt), reply.version)))
    if reply.status != 204:
        headers.insert(0, ("Content-Type", reply.content_type))
    return Answer(reply.body, reply.status, headers)
