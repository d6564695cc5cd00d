"""From an answer of PostgREST to one of our errors, below any route: what `Database` raises, keeps back and repeats.

Each code with its HTTP answer is in test_upstream_failures.py.
"""

import orjson
import pytest

from server.data.clients import Database, Supabase
from server.data.failures import read_problem, refusal
from server.data.queries import call, table
from server.errors import (
    AppError,
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from tests.http.conftest import SUPABASE_URL, FakeUpstream

QUERY = table("monitors").select("id").limit(1)
WORDS = "an_upstream_word"
SERIALIZATION_FAILURE = {"code": "40001", "message": "could not serialize access"}
DEADLOCK = {"code": "40P01", "message": "deadlock detected"}


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def database(upstream: FakeUpstream) -> Database:
    return Supabase(upstream, SUPABASE_URL, "sb_publishable_x").as_user("token", "request-1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (503, "PGRST000", Unavailable),
        (503, "08006", Unavailable),
        (503, "53300", Unavailable),
        (503, "57P01", Unavailable),
        (401, "PGRST301", Unauthenticated),
        (406, "PGRST116", NotFound),
        (409, "23505", Conflict),
        (409, "23503", Conflict),
        (400, "23514", InvalidInput),
        (400, "22P02", InvalidInput),
        (403, "42501", Forbidden),
        (500, "40001", Conflict),
        (500, "57014", TimedOut),
        (412, "PT412", PreconditionFailed),
        (400, "P0001", AppError),
        (500, "08", AppError),
        (500, "PGRST0000", AppError),
    ],
)
def test_the_upstreams_words_are_kept_for_the_log(status, code, ours):
    problem = {"code": code, "message": f"{WORDS} {'x' * 10_000}", "hint": WORDS}
    # What our own functions raise is ours to show: of it, only the hint is kept back.
    shown_of_ours = code.startswith("PT")
    error = refusal(status, read_problem(orjson.dumps(problem if shown_of_ours else {**problem, "details": WORDS})))
    assert type(error) is ours
    assert WORDS not in repr((error.detail, str(error), error.faults))
    assert shown_of_ours or WORDS not in error.code
    assert (error.reason or "").startswith(f"{status} {code} {WORDS}"), "the log says what it was"
    assert len(error.reason or "") <= 500


@pytest.mark.parametrize(
    ("code", "message", "ours"),
    [
        ("23505", 'duplicate key value violates unique constraint "memberships_pkey"', "memberships_pkey"),
        (
            "23503",
            'update or delete on table "organisations" violates foreign key constraint "monitors_org_id_fkey" '
            'on table "monitors"',
            "monitors_org_id_fkey",
        ),
        ("23505", "duplicate key value", "conflict"),
        ("23505", 'constraint "<script>"', "conflict"),
    ],
)
def test_the_constraint_that_stood_in_the_way_is_the_code_of_a_conflict(code, message, ours):
    error = refusal(409, read_problem(orjson.dumps({"code": code, "message": message})))
    assert (type(error), error.code, error.detail) == (Conflict, ours, Conflict.default_detail)


@pytest.mark.parametrize(
    ("code", "message", "faults"),
    [
        (
            "23514",
            'new row for relation "channels" violates check constraint "channels_url_length"',
            (Fault("", "channels_url_length", "The rule channels url length does not hold."),),
        ),
        ("23502", 'null value in column "name" of relation "channels" violates not-null constraint', ()),
        ("22001", "value too long for type character varying(10)", ()),
        ("22003", 'value "99999999999" is out of range for type integer', ()),
        ("22007", 'invalid input syntax for type timestamp: "x"', ()),
    ],
)
def test_a_value_that_the_database_refuses_is_a_fault_of_the_input(code, message, faults):
    error = refusal(400, read_problem(orjson.dumps({"code": code, "message": message})))
    assert (type(error), error.code, error.faults) == (InvalidInput, "invalid_input", faults)


def test_what_our_functions_raise_is_their_code_and_text_or_the_usual_ones():
    said = {"code": "PT409", "message": "already_resolved", "details": "It was resolved."}
    error = refusal(409, read_problem(orjson.dumps(said)))
    assert (type(error), error.code, error.detail) == (Conflict, "already_resolved", "It was resolved.")

    for nothing in (None, ""):
        error = refusal(404, read_problem(orjson.dumps({"code": "PT404", "message": nothing, "details": nothing})))
        assert (type(error), error.code, error.detail) == (NotFound, "not_found", NotFound.default_detail)

    unknown = refusal(402, read_problem(orjson.dumps({"code": "PT402", "message": "pay", "details": "Pay."})))
    assert (type(unknown), unknown.code, unknown.detail) == (AppError, "internal_error", AppError.default_detail)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"null", b"[]", b'"text"', b"{}", b'{"code": null}', b"\xff", b"[" * 5000]
)
@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 502, 503])
def test_an_answer_that_is_not_postgrests_means_that_there_is_no_postgrest(database, upstream, status, body):
    upstream.answer(body, status)
    with pytest.raises(Unavailable) as refused:
        database.execute(QUERY)
    assert (refused.value.status, refused.value.retry_after_seconds) == (503, 1)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("page", [b"<html></html>", b"\r\n <!doctype html>", b"\xef\xbb\xbf<html></html>"])
def test_a_page_with_status_200_is_not_taken_for_an_answer(database, upstream, page):
    upstream.answer(page)
    with pytest.raises(Unavailable):
        database.execute_if_it_stands(QUERY)


@pytest.mark.parametrize("lost", [SERIALIZATION_FAILURE, DEADLOCK])
@pytest.mark.parametrize("query", [QUERY, call("create_organisation", {"name": "x"})], ids=["read", "write"])
def test_a_lost_race_is_run_once_more_the_same_and_then_it_is_a_conflict(database, upstream, lost, query):
    upstream.answer(lost, 500)
    upstream.answer(b'["won"]')
    assert database.execute(query) == b'["won"]'
    assert upstream.requests[0] == upstream.requests[1]

    upstream.requests.clear()
    for _ in range(3):
        upstream.answer(lost, 500)
    with pytest.raises(Conflict) as refused:
        database.execute(query)
    assert refused.value.code == "conflict"
    assert len(upstream.requests) == 2


def test_the_second_try_of_a_lost_race_is_judged_by_its_own_answer(database, upstream):
    upstream.answer(DEADLOCK, 500)
    upstream.answer({"code": "42501", "message": "permission denied"}, 403)
    with pytest.raises(Forbidden):
        database.execute(QUERY)
    upstream.answer(DEADLOCK, 500)
    upstream.fail(TimedOut(retry_after_seconds=1))
    with pytest.raises(TimedOut):
        database.execute(QUERY)


def test_no_row_is_not_found_where_one_is_read_and_none_where_a_write_had_a_condition(database, upstream):
    with pytest.raises(NotFound):
        database.execute_one(QUERY)
    assert database.execute_if_it_stands(QUERY) is None
    upstream.answer(b'[{"id":1}]')
    assert database.execute_one(QUERY) == b'[{"id":1}]'


def test_whether_the_database_is_reachable_is_told_by_what_it_shows_a_stranger(upstream):
    supabase = Supabase(upstream, SUPABASE_URL, "sb_publishable_x")
    upstream.answer([])
    assert supabase.is_reachable()
    assert "Authorization" not in upstream.requests[0].headers
    for status, body in [(401, {"code": "PGRST301"}), (503, {"code": "PGRST002"}), (502, b"<html>")]:
        upstream.answer(body, status)
        with pytest.raises(AppError):
            supabase.is_reachable()
