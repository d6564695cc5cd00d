"""GET /v1/audit and its export, in memory and as the served process sends it."""

import csv
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from server.errors import Unavailable
from server.features.audit import routes
from server.features.audit.schemas import CSV_HEADER, AuditEntry
from tests.architecture.test_routes import AUDITED
from tests.http.conftest import ORG_ID
from tests.http.test_errors import is_problem
from tests.http.test_served import Served, serve
from tests.http.upstreams import Arrived, RealUpstream, Told, real_upstream
from tests.stack.product import eventually

EXPORT = "/v1/audit/export"


def entries(count: int, first: int = 1000) -> list[dict[str, Any]]:
    """Return rows as the database answers them, newest first."""
    return [{**AUDITED, "seq": first - number} for number in range(count)]


def page(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"settled_below": "99", "entries": rows}


def asked(upstream) -> list[dict[str, Any]]:
    return [json.loads(each.content or b"") for each in upstream.requests]


def test_an_entry_says_who_did_what_to_what_and_how_it_was_before(client, signed_in, upstream):
    upstream.answer(page(entries(1)))
    answer = client.get("/v1/audit", headers=signed_in)
    (entry,) = answer.json["data"]
    AuditEntry.model_validate(entry)
    assert entry["actor"] == {"kind": "user", "id": AUDITED["actor_id"], "email": "ada@example.com", "session_id": None}
    assert entry["subject"] == {"kind": "channel", "id": AUDITED["subject_id"]}
    assert (entry["id"], entry["type"], entry["before"]) == (1000, "channel.created", None)
    assert entry["occurred_at"] == entry["after"]["created_at"] == "2026-01-01T00:00:00.512345Z"
    assert "secret" not in answer.text


def test_filters_are_handed_on_and_the_next_page_begins_after_the_last(client, signed_in, upstream):
    upstream.answer(page(entries(3)))
    query = {
        "org_id": ORG_ID,
        "actor_id": AUDITED["actor_id"],
        "subject_kind": "monitor",
        "subject_id": AUDITED["subject_id"],
        "type": "monitor.updated",
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-02-01T00:00:00+01:00",
        "limit": 2,
    }
    first = client.get("/v1/audit", query_string=query, headers=signed_in).json
    assert [entry["id"] for entry in first["data"]] == [1000, 999]
    upstream.answer(page(entries(1, first=998)))
    last = client.get("/v1/audit", query_string={**query, "cursor": first["next_cursor"]}, headers=signed_in).json
    assert ([entry["id"] for entry in last["data"]], last["next_cursor"]) == ([998], None)
    at_first, later = asked(upstream)
    assert at_first == {
        **{name: query[name] for name in ("org_id", "actor_id", "subject_kind", "subject_id", "type")},
        **dict.fromkeys(("before_at", "before_seq", "below_xid")),
        "from_at": "2026-01-01T00:00:00Z",
        "to_at": "2026-02-01T00:00:00+01:00",
        "max_rows": 3,
    }
    assert later == {**at_first, "before_at": "2026-01-01T00:00:00.512345+00:00", "before_seq": 999}


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "limit=0", "limit=201", "from=yesterday", "from=2026-01-01T00:00", "type=a%20b", "order=asc", "id=1"],
)
def test_what_makes_no_sense_is_422(client, signed_in, upstream, query):
    is_problem(client.get(f"/v1/audit?{query}", headers=signed_in), 422, "invalid_input")
    is_problem(client.get(f"{EXPORT}?{query}", headers=signed_in), 422, "invalid_input")
    assert upstream.requests == []


def test_an_export_is_a_file_of_all_pages_as_they_stood_when_it_began(client, signed_in, upstream, monkeypatch):
    monkeypatch.setattr(routes, "PAGE_ROWS", 2)
    for first, count in ((1000, 2), (998, 2), (996, 1)):
        upstream.answer(page(entries(count, first)))
    answer = client.get(f"{EXPORT}?format=ndjson&type=channel.created", headers=signed_in)
    assert (answer.status_code, answer.content_type) == (200, "application/x-ndjson")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tocsin-audit.ndjson"'
    assert answer.headers["Cache-Control"] == "no-store"
    lines = [orjson.loads(line) for line in answer.data.splitlines()]
    assert [line["id"] for line in lines] == [1000, 999, 998, 997, 996]
    for line in lines:
        AuditEntry.model_validate(line)
    assert [(each["before_seq"], each["below_xid"], each["type"]) for each in asked(upstream)] == [
        (None, None, "channel.created"),
        (999, "99", "channel.created"),
        (997, "99", "channel.created"),
    ]


def test_csv_holds_the_same_and_opens_in_a_spreadsheet_without_running_anything(client, signed_in, upstream):
    evil = {**AUDITED, "actor_email": "=HYPERLINK(1)@example.com", "type": "@type", "before": {"name": '=1+1,"x"'}}
    upstream.answer(page([evil]))
    answer = client.get(EXPORT, headers=signed_in)
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tocsin-audit.csv"'
    header, record = csv.reader(io.StringIO(answer.text, newline=""))
    assert tuple(header) == CSV_HEADER
    found = dict(zip(header, record, strict=True))
    assert (found["actor_email"], found["type"]) == ("'=HYPERLINK(1)@example.com", "'@type")
    assert (found["id"], found["session_id"], found["org_id"]) == ("7", "", AUDITED["org_id"])
    assert orjson.loads(found["after"])["url"].startswith("https://hooks.example.com/… (sha256:")
    assert "secret" not in answer.text


def test_an_export_of_nothing_is_a_file_of_nothing(client, signed_in, upstream):
    upstream.answer(page([]))
    assert client.get(EXPORT, headers=signed_in).text == ",".join(CSV_HEADER) + "\r\n"
    upstream.answer(page([]))
    assert client.get(f"{EXPORT}?format=ndjson", headers=signed_in).data == b""


def test_who_may_not_is_refused_before_any_file(client, signed_in, upstream):
    upstream.answer({"code": "PT403", "message": "forbidden", "details": "This needs the role admin or above."}, 403)
    is_problem(client.get(EXPORT, headers=signed_in), 403, "forbidden")


@pytest.mark.parametrize("failure", [Unavailable(retry_after_seconds=1), b'{"settled_below": "9", "ent', b"[]"])
def test_a_failure_between_two_pages_is_a_problem_and_no_file(client, signed_in, upstream, monkeypatch, failure):
    monkeypatch.setattr(routes, "PAGE_ROWS", 2)
    upstream.answer(page(entries(2)))
    upstream.fail(failure) if isinstance(failure, Exception) else upstream.answer(failure)
    answer = client.get(EXPORT, headers=signed_in)
    assert answer.status_code in {500, 503}
    assert answer.content_type == "application/problem+json"
    assert "Content-Disposition" not in answer.headers


def test_more_than_an_export_holds_is_422_and_says_how_to_ask(client, signed_in, upstream, monkeypatch):
    monkeypatch.setattr(routes, "PAGE_ROWS", 2)
    monkeypatch.setattr(routes, "MOST_EXPORTED", 3)
    for first in (1000, 998):
        upstream.answer(page(entries(2, first)))
    answer = client.get(EXPORT, headers=signed_in)
    is_problem(answer, 422, "invalid_input")
    assert answer.json["errors"][0]["code"] == "export_too_large"


def test_only_a_few_exports_run_at_once_and_a_failed_one_gives_its_place_back(client, signed_in, upstream):
    for _ in range(routes.MAX_EXPORTS + 1):
        upstream.fail(Unavailable())
        assert client.get(EXPORT, headers=signed_in).status_code == 503
    for _ in range(routes.MAX_EXPORTS):
        assert routes._export_places.acquire(blocking=False)
    try:
        answer = client.get(EXPORT, headers=signed_in)
        is_problem(answer, 429, "rate_limited")
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        routes._export_places.release(routes.MAX_EXPORTS)


# --- as the process sends it ------------------------------------------------------------------------------------------

PAGES = 5
BIG = {"name": "x" * 20_000}


@pytest.fixture(scope="module")
def upstream_of_process() -> Iterator[RealUpstream]:
    with real_upstream() as upstream:
        yield upstream


@pytest.fixture
def served(upstream_of_process: RealUpstream, tmp_path: Path) -> Iterator[Served]:
    upstream_of_process.answer = big_pages(PAGES)
    with serve(tmp_path, SUPABASE_URL=upstream_of_process.url) as served:
        yield served


def big_pages(count: int, *, breaks_at: int | None = None):
    """Answer `count` pages of 10 MB each; at one of them, hang up instead."""
    full = orjson.dumps(page([{**AUDITED, "after": BIG, "type": "monitor.created", "subject_kind": "monitor"}] * 500))
    served_pages = iter(range(count + 1))

    def answer(arrived: Arrived) -> Told | None:
        if "audit_page" not in arrived.target:
            return Told()
        number = next(served_pages)
        if number == breaks_at:
            return None
        return Told(body=full if number < count else orjson.dumps(page([])))

    return answer


def export(served: Served) -> requests.Response:
    return requests.get(
        f"http://127.0.0.1:{served.port}{EXPORT}?format=ndjson",
        headers={"Authorization": f"Bearer {served.token}"},
        stream=True,
        timeout=60,
    )


def processes(served: Served) -> list[int]:
    """Return the process that was started and those that it has started."""
    children = Path(f"/proc/{served.running.pid}/task/{served.running.pid}/children").read_text().split()
    return [served.running.pid, *map(int, children)]


def deleted_files(served: Served) -> int:
    """Count the open files of the processes that have no name: those that exports are made in."""
    links = [link for pid in processes(served) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(str(link.readlink()).endswith("(deleted)") for link in links if link.is_symlink())


def test_an_upstream_that_fails_in_the_middle_makes_no_file_that_looks_whole(
    served: Served, upstream_of_process: RealUpstream
):
    upstream_of_process.answer = big_pages(PAGES, breaks_at=3)
    answer = export(served)
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert deleted_files(served) == 0


def test_a_server_that_dies_in_the_middle_leaves_a_transfer_that_is_seen_to_be_broken(served: Served):
    answer = export(served)
    assert int(answer.headers["Content-Length"]) > PAGES * 500 * 20_000
    pieces = answer.iter_content(65536)
    next(pieces)
    os.killpg(served.running.pid, signal.SIGKILL)
    served.running.wait(10)
    with pytest.raises(requests.RequestException):
        list(pieces)
    served.running.returncode = 0  # it did as it was told


def test_a_client_that_goes_away_leaves_nothing_behind(served: Served):
    with export(served) as answer:
        next(answer.iter_content(65536))
        assert deleted_files(served) == 1
    eventually(lambda: deleted_files(served) == 0, "the file of a client that has gone stays open")


def test_a_head_request_leaves_nothing_behind(served: Served):
    answer = requests.head(
        f"http://127.0.0.1:{served.port}{EXPORT}", headers={"Authorization": f"Bearer {served.token}"}, timeout=60
    )
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) > PAGES * 500 * 20_000
    assert deleted_files(served) == 0
