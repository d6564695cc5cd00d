"""Whatever stands in the headers is no failure of ours, and each path says what it answers to."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.app import all_operations
from tests.architecture.test_routes import ROUTES
from tests.http.conftest import MONITOR, MONITOR_FOR_WRITING
from tests.http.test_errors import is_problem
from tests.http.test_parsing import path_of

READING = [op for op in all_operations() if op.method == "GET" and op.name != "docs_asset" and not op.says]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NAMES = ["Accept", "Content-Type", "If-Match", "If-None-Match", "Origin", "Range", "X-Request-ID", "Cookie", "Expect"]
# What header parsers stumble over, and whatever else HTTP lets through.
VALUES = st.sampled_from(
    [
        "",
        ",",
        ";",
        ";;q",
        "*",
        '"',
        "W/",
        "a/b/c",
        "text/html;q=abc",
        "*/*;q=1e400",
        "*/*;q=-1",
        "application/json;q=nan",
    ]
) | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(headers=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4), method=st.sampled_from(["GET", "PATCH"]))
def test_no_header_of_a_client_is_a_failure_of_ours(client, signed_in, upstream, headers, method):
    upstream._script.clear()
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([MONITOR])
    body = {} if method == "GET" else {"data": b'{"name": "New"}'}
    answer = client.open(f"/v1/monitors/{MONITOR['id']}", method=method, headers={**signed_in, **headers}, **body)
    assert answer.status_code in {200, 304, 406, 412, 415}


def test_each_path_says_which_methods_it_answers_to(client):
    offered: dict[str, set[str]] = defaultdict(set)
    for operation in all_operations():
        offered[path_of(operation)] |= {operation.method} | ({"HEAD"} if operation.method == "GET" else set())
    for path, methods in offered.items():
        for method in set(METHODS) - methods:
            answer = client.open(path, method=method)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["Allow"].split(", ")) == methods


@pytest.mark.parametrize("operation", READING, ids=lambda operation: operation.name)
def test_head_answers_as_get_does_without_a_body(operation, client, upstream, signed_in, auth_says_yes):
    def ask(method: str):
        for answer in ROUTES[operation.method, operation.path][-1]:
            upstream.answer(answer)
        return client.open(path_of(operation), method=method, headers={} if operation.is_public else signed_in)

    whole, head = ask("GET"), ask("HEAD")
    assert (whole.status_code, head.status_code, head.data) == (operation.status, operation.status, b"")
    assert head.content_type == whole.content_type
    if operation.name not in {"metrics", "readyz", "read_uptime", "read_series"}:  # which say something new each time
        assert head.headers.get("ETag") == whole.headers.get("ETag")
        assert ("ETag" in whole.headers) == (operation.name != "export_audit"), "a file is not asked for twice"
        assert head.headers["Content-Length"] == str(len(whole.data))


@pytest.mark.parametrize("operation", list(all_operations()), ids=lambda operation: operation.name)
def test_a_path_with_another_slash_is_another_path(operation, client, signed_in):
    path = path_of(operation)
    for other in (f"{path}/", f"/{path}", path.replace("/", "//", 1), path.upper()):
        is_problem(client.open(other, method=operation.method, headers=signed_in), 404, "not_found")
