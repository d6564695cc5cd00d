"""ETags, 304 and 412 (RFC 9110): a reader need not be told twice, and a writer cannot undo what they have not seen."""

import json
import re

import pytest

from server.features.monitors.schemas import Monitor
from server.http.replies import etag, hash_of, held, one, salt_of
from tests.http.conftest import MONITOR, MONITOR_FOR_WRITING
from tests.http.test_parsing import INCIDENT, ORGANISATION

HERE = f"/v1/monitors/{MONITOR['id']}"


def read(client, signed_in, upstream, row=MONITOR, path=HERE, **headers):
    upstream.answer([row])
    return client.get(path, headers={**signed_in, **headers})


def test_every_get_has_an_etag_and_may_be_kept_but_must_be_asked_for_again(client, signed_in, upstream):
    for path in (HERE, "/v1/monitors"):
        answer = read(client, signed_in, upstream, path=path)
        assert answer.headers["ETag"].startswith('"')
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert "Authorization" in answer.headers.getlist("Vary")
    assert client.get("/healthz").headers["ETag"]


def test_what_the_reader_holds_still_stands(client, signed_in, upstream):
    tag = read(client, signed_in, upstream).headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = read(client, signed_in, upstream, **{"If-None-Match": known})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
        assert "Content-Length" not in again.headers
        assert "Content-Type" not in again.headers


def test_what_has_changed_is_answered_whole(client, signed_in, upstream):
    tag = read(client, signed_in, upstream).headers["ETag"]
    went_down = {**MONITOR, "state": "down"}
    again = read(client, signed_in, upstream, went_down, **{"If-None-Match": tag})
    assert (again.status_code, again.json["state"]) == (200, "down")
    assert again.headers["ETag"] != tag


def test_head_answers_as_get_does_without_a_body(client, signed_in, upstream):
    whole = read(client, signed_in, upstream)
    upstream.answer([MONITOR])
    head = client.head(HERE, headers=signed_in)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert head.headers["Content-Length"] == str(len(whole.data))
    upstream.answer([MONITOR])
    still = client.head(HERE, headers={**signed_in, "If-None-Match": whole.headers["ETag"]})
    assert (still.status_code, still.data, still.headers["ETag"]) == (304, b"", whole.headers["ETag"])


@pytest.mark.parametrize("held", ["", ",", "abc", '"', "W/", 'w/"x"', '"*"', '*, "x"'])
def test_an_if_none_match_that_names_nothing_of_ours_gets_the_whole_answer(client, signed_in, upstream, held):
    assert read(client, signed_in, upstream, **{"If-None-Match": held}).status_code == 200


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_of_what_one_has_read_goes_through_and_is_guarded_to_the_end(client, signed_in, upstream, method):
    tag = read(client, signed_in, upstream).headers["ETag"]
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([MONITOR])
    body = {"json": {"name": "new"}} if method == "PATCH" else {}
    answer = client.open(HERE, method=method, headers={**signed_in, "If-Match": tag}, **body)
    assert answer.status_code in {200, 204}
    assert "version=eq.3" in upstream.requests[-1].path, "the write itself insists on the version"


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("tag", ['"2.abc"', 'W/"3.abc"', '"abc"', "3", '"3.a", "4.b"', '"99999999999.a"', ""])
def test_a_change_of_what_has_moved_on_is_412_and_writes_nothing(client, signed_in, upstream, method, tag):
    upstream.answer([MONITOR_FOR_WRITING])
    body = {"json": {"name": "new"}} if method == "PATCH" else {}
    answer = client.open(HERE, method=method, headers={**signed_in, "If-Match": tag}, **body)
    assert (answer.status_code, answer.json["code"]) == (412, "precondition_failed")
    assert all(asked.method == "GET" for asked in upstream.requests)


def test_what_cannot_be_read_is_said_before_what_has_moved_on(client, signed_in, upstream):
    """RFC 9110, 13.2.1: a precondition is looked at where all else is well."""
    headers = {**signed_in, "If-Match": '"2.abc"', "Idempotency-Key": "two words"}
    answer = client.post(f"{HERE}/pause", headers=headers)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (400, "Idempotency-Key")


def test_a_change_that_loses_the_race_between_reading_and_writing_is_412(client, signed_in, upstream):
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([])  # the conditional write met another version
    answer = client.patch(HERE, json={"name": "new"}, headers={**signed_in, "If-Match": '"3.abc"'})
    assert answer.status_code == 412


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}])
def test_whoever_insists_on_nothing_deletes_whatever_stands(client, signed_in, upstream, headers):
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([MONITOR])
    assert client.delete(HERE, headers={**signed_in, **headers}).status_code == 204
    assert "version" not in upstream.requests[-1].path


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}])
def test_whoever_insists_on_nothing_writes_over_whatever_stands(client, signed_in, upstream, headers):
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([MONITOR])
    answer = client.patch(HERE, json={"name": "new"}, headers={**signed_in, **headers})
    assert answer.status_code == 200
    assert "version" not in upstream.requests[-1].path.split("select")[0]
    assert json.loads(upstream.requests[-1].content or b"") == {"name": "new"}


def test_a_monitor_that_went_down_since_it_was_read_may_still_be_renamed(client, signed_in, upstream):
    tag = read(client, signed_in, upstream).headers["ETag"]
    upstream.answer([{**MONITOR_FOR_WRITING, "state": "down"}])
    upstream.answer([{**MONITOR, "state": "down"}])
    answer = client.patch(HERE, json={"name": "new"}, headers={**signed_in, "If-Match": tag})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/pause", "/resume"])
def test_pausing_and_resuming_honour_if_match_too(client, signed_in, upstream, path):
    upstream.answer([MONITOR_FOR_WRITING])
    answer = client.post(HERE + path, headers={**signed_in, "If-Match": '"2.abc"'})
    assert answer.status_code == 412
    assert [asked.method for asked in upstream.requests] == ["GET"]


def test_an_organisation_is_renamed_and_deleted_only_as_it_was_read(client, signed_in, upstream, auth_says_yes):
    here = f"/v1/orgs/{MONITOR['org_id']}"
    headers = {**signed_in, "If-Match": '"3.abc"'}
    upstream.answer([ORGANISATION])
    upstream.answer({"code": "PT412", "message": "precondition_failed", "details": "It was changed."}, 412)
    assert client.patch(here, json={"name": "New"}, headers=headers).status_code == 412
    upstream.answer({"code": "PT412", "message": "precondition_failed", "details": "It was changed."}, 412)
    assert client.delete(here, headers=headers).status_code == 412
    renaming, deleting = (json.loads(asked.content or b"") for asked in upstream.requests[1:])
    assert renaming["expected_version"] == deleting["expected_version"] == 3


def test_a_channel_is_deleted_only_as_it_was_read(client, signed_in, upstream):
    upstream.answer([{"version": 3, "my_role": "owner"}])
    upstream.answer([])
    answer = client.delete(f"/v1/channels/{MONITOR['id']}", headers={**signed_in, "If-Match": '"2.abc"'})
    assert answer.status_code == 412
    assert "version=eq.2" in upstream.requests[-1].path


@pytest.mark.parametrize("to", ["acknowledge", "resolve"])
def test_an_incident_moves_on_only_as_it_was_read(client, signed_in, upstream, to):
    upstream.answer([INCIDENT])
    answer = client.post(f"/v1/incidents/{INCIDENT['id']}/{to}", headers={**signed_in, "If-Match": '"2.abc"'})
    assert answer.status_code == 412
    assert [asked.method for asked in upstream.requests] == ["GET"]


def test_if_match_says_nothing_about_a_read(client, signed_in, upstream):
    assert read(client, signed_in, upstream, **{"If-Match": '"never-ours"'}).status_code == 200


def test_what_the_reader_holds_is_answered_before_anybody_has_read_it(client, signed_in, upstream, monkeypatch):
    for path in ("/v1/monitors", HERE):
        tag = read(client, signed_in, upstream, path=path).headers["ETag"]

        def must_not(*_: object) -> None:
            raise AssertionError("a 304 was rendered")

        with monkeypatch.context() as patched:
            for name in ("read_answer", "read_rows", "shape"):
                patched.setattr(f"server.http.replies.{name}", must_not)
            again = read(client, signed_in, upstream, path=path, **{"If-None-Match": tag})
        assert (again.status_code, again.headers["ETag"]) == (304, tag)
        assert again.headers["Cache-Control"] == "private, no-cache"
        assert "Authorization" in again.headers.getlist("Vary")


BROKEN = [b"{}", b"1", b"[1]", b'[{"id":', b"<html>", b"null", b'[{"id":"x"}]', b""]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("path", [HERE, "/v1/monitors"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_is_broken_is_never_taken_for_what_the_reader_holds(client, signed_in, upstream, path, method, broken):
    tag = read(client, signed_in, upstream, path=path).headers["ETag"]
    for known in (tag, "*", '"abc"', f'*, {tag}, "3.0123456789abcdef01"'):
        upstream.answer(broken)
        answer = client.open(path, method=method, headers={**signed_in, "If-None-Match": known})
        assert answer.status_code in {500, 503}
        assert "ETag" not in answer.headers


def test_a_version_that_was_put_before_the_hash_of_another_is_none_of_ours(client, signed_in, upstream):
    tag = read(client, signed_in, upstream).headers["ETag"]
    assert re.fullmatch(r'"3\.[0-9a-f]{18}"', tag)
    for forged in (tag.replace("3.", "4."), tag.replace("3.", ""), tag.replace("3.", "03."), tag.upper()):
        if forged != tag:
            assert read(client, signed_in, upstream, **{"If-None-Match": forged}).status_code == 200


def test_a_deploy_that_shapes_answers_differently_changes_every_etag(client, signed_in, upstream):
    raw = json.dumps([MONITOR]).encode()
    reply = one(Monitor, raw)
    tags = [etag(hash_of(reply, salt_of(document)), 3) for document in (b"one", b"other", b"one")]
    assert tags[0] == tags[2] != tags[1]
    assert held(tags[1], hash_of(reply, salt_of(b"one"))) is None
    assert held(tags[0], hash_of(reply, salt_of(b"one"))) == tags[0]


def test_another_answer_of_the_database_has_another_etag_even_where_it_reads_the_same(client, signed_in, upstream):
    tag = read(client, signed_in, upstream).headers["ETag"]
    upstream.answer(json.dumps([MONITOR], indent=1).encode())
    answer = client.get(HERE, headers={**signed_in, "If-None-Match": tag})
    assert answer.status_code == 200, "spelled otherwise: sent once more, which is never wrong"
    assert answer.headers["ETag"] != tag


def test_many_tags_are_looked_through(client, signed_in, upstream):
    tag = read(client, signed_in, upstream).headers["ETag"]
    many = ", ".join([*(f'"3.{number:018x}"' for number in range(200)), tag])
    assert read(client, signed_in, upstream, **{"If-None-Match": many}).status_code == 304
