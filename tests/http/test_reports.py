"""GET /v1/reports/sla: which of its two shapes it has, how many monitors it tells of, and what it asks for."""

import json
from typing import Any

import pytest

from server.features.reports import routes
from tests.architecture.test_routes import SLA
from tests.http.test_errors import is_problem

PATH = "/v1/reports/sla"


@pytest.mark.parametrize(
    ("accept", "query", "media_type"),
    [
        (None, "", "application/json"),
        ("*/*", "", "application/json"),
        ("application/json", "", "application/json"),
        ("text/csv", "", "text/csv"),
        ("TEXT/CSV; header=present", "", "text/csv"),
        ("text/*", "", "text/csv"),
        ("text/csv, application/json;q=0.9", "", "text/csv"),
        ("text/csv;q=0.1, application/json", "", "application/json"),
        ("text/html, */*;q=0.1", "", "application/json"),
        ("text/html, */*;q=0.1", "format=csv", "text/csv"),
        ("text/csv", "format=json", "application/json"),
    ],
)
def test_the_parameter_decides_and_else_what_the_caller_likes_best(
    client, signed_in, upstream, accept: str | None, query: str, media_type: str
):
    upstream.answer(SLA)
    headers = signed_in | ({} if accept is None else {"Accept": accept})
    answer = client.get(f"{PATH}?{query}", headers=headers)
    assert (answer.status_code, answer.mimetype) == (200, media_type)
    assert {"Accept", "Authorization"} <= set(", ".join(answer.headers.getlist("Vary")).split(", "))


@pytest.mark.parametrize("accept", ["text/html", "text/csv;q=0", "image/png, text/plain"])
def test_who_accepts_neither_hears_which_there_are(client, signed_in, upstream, accept: str):
    answer = client.get(PATH, headers={**signed_in, "Accept": accept})
    is_problem(answer, 406, "not_acceptable")
    assert answer.json["detail"] == "This path answers with application/json or text/csv."
    assert upstream.requests == []


def test_the_document_shows_both_shapes(client):
    document: dict[str, Any] = client.get("/openapi.json").json
    content = document["paths"][PATH]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/csv"}
    assert content["text/csv"]["example"].startswith("monitor_id,name,")


def test_a_month_is_asked_for_as_it_is_in_its_zone(client, signed_in, upstream):
    upstream.answer(SLA)
    client.get(f"{PATH}?month=2026-10&time_zone=Europe/Berlin", headers=signed_in)
    (asked,) = upstream.requests
    assert json.loads(asked.content) == {
        "org_id": None,
        "from_at": "2026-09-30T22:00:00+00:00",
        "to_at": "2026-10-31T23:00:00+00:00",
        "max_monitors": routes.MOST_MONITORS + 1,
    }


def test_more_monitors_than_a_report_holds_are_refused_and_not_left_out(client, signed_in, upstream, monkeypatch):
    monkeypatch.setattr(routes, "MOST_MONITORS", 1)
    upstream.answer({**SLA, "monitors": SLA["monitors"] * 2})
    answer = client.get(PATH, headers=signed_in)
    is_problem(answer, 409, "report_too_large")
