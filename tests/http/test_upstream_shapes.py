"""An upstream that answers 200 and JSON, but not what was asked, is never taken for success."""

import logging
from typing import Any

import pytest

from server.app import all_operations
from server.http.routing import Operation
from tests.architecture.test_routes import ROUTES
from tests.http.test_errors import is_problem
from tests.http.test_parsing import path_of

ANOTHER = [b"{}", b"1", b"true", b'"text"', b'""', b"[1]", b"[null]", b"[[]]", b"[{}]", b'{"data": []}']
# The last call of what is answered with 204 tells what is gone; nobody reads more of it than whether it is empty.
ASKING = [
    (operation, broken)
    for operation in all_operations()
    if not operation.is_public
    for broken in range(len(ROUTES[operation.method, operation.path][-1]))
    if not (operation.status == 204 and broken == len(ROUTES[operation.method, operation.path][-1]) - 1)
]


@pytest.mark.parametrize(("operation", "broken"), ASKING, ids=lambda value: getattr(value, "name", str(value)))
def test_an_answer_of_another_shape_is_no_success_at_any_call_of_any_route(
    operation: Operation, broken: int, client, upstream, signed_in, auth_says_yes, caplog
):
    *_, body, answers = ROUTES[operation.method, operation.path]
    more: dict[str, Any] = {} if body is None else {"json": body}
    for shape in ANOTHER:
        upstream._script.clear()
        for answer in [*answers[:broken], shape]:
            upstream.answer(answer)
        with caplog.at_level(logging.ERROR):
            reply = client.open(path_of(operation), method=operation.method, headers=signed_in, **more)
        is_problem(reply, 500, "internal_error")
        assert set(reply.json) == {"type", "title", "status", "detail", "code", "request_id"}, shape
        assert caplog.records, "somebody must hear of it"
        caplog.clear()


def test_a_row_that_was_written_and_may_not_be_read_is_our_failure(client, upstream, signed_in, caplog):
    *_, body, (memberships, _) = ROUTES["POST", "/v1/monitors"]
    upstream.answer(memberships)
    upstream.answer([])
    with caplog.at_level(logging.ERROR):
        is_problem(client.post("/v1/monitors", json=body, headers=signed_in), 500, "internal_error")
    assert "upstream_shape: Monitor 0 rows for one" in caplog.text
