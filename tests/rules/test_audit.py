"""What the audit trail shows of a row, where a page of it begins, and what a spreadsheet makes of a cell."""

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.audit.rules import REDACTED, Position, csv_lines, decode_position, is_decided, redact

HOOK = "https://hooks.example.com:8443/services/T0/B0/xoxb-secret?token=another"
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  made aware


def test_of_a_channels_url_only_the_origin_and_a_fingerprint_are_shown():
    shown = redact("channel", {"name": "Pager", "url": HOOK})
    assert shown is not None
    assert shown["name"] == "Pager"
    assert shown["url"].startswith("https://hooks.example.com:8443/… (sha256:")
    assert not any(secret in shown["url"] for secret in ("services", "T0", "xoxb", "secret", "token", "another"))
    assert redact("channel", {"url": HOOK}) == {"url": shown["url"]}, "the same secret has the same fingerprint"
    assert redact("channel", {"url": HOOK + "x"}) != {"url": shown["url"]}, "a change of a secret is seen"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@example.com/x", "https://example.com/…"),
        ("https://[::1]:9/x", "https://[::1]:9/…"),
        ("https://[::1/secret", REDACTED),
        (7, REDACTED),
        (None, None),
    ],
)
def test_whatever_stands_in_place_of_a_url_shows_no_secret(url, shown):
    found = redact("channel", {"url": url})
    assert found is not None
    assert found["url"] == shown or str(found["url"]).startswith(f"{shown} (sha256:")


def test_of_a_target_the_query_is_hidden():
    row = redact("monitor", {"target": "https://example.com/health?key=secret"})
    assert row is not None
    assert row["target"].startswith("https://example.com/health?… (sha256:")
    assert redact("monitor", {"target": "https://example.com/health"}) == {"target": "https://example.com/health"}


def test_of_options_headers_and_bodies_are_marked_and_the_rest_is_shown():
    options = {"method": "POST", "headers": {"X-Key": "hush"}, "body": "hush", "auth": {"type": "bearer"}}
    row = redact("monitor", {"options": options})
    assert row is not None
    shown = row["options"]
    assert "hush" not in str(shown)
    assert (shown["method"], shown["auth"], list(shown["headers"])) == ("POST", {"type": "bearer"}, ["X-Key"])
    assert redact("monitor", {"options": options | {"body": "other"}}) != row, "a change is seen"
    assert redact("monitor", {"options": {"send": None, "headers": {}}}) == {"options": {"send": None, "headers": {}}}


@pytest.mark.parametrize("options", ["hush", ["hush"], {"headers": "hush"}, {"headers": {"X": 7}}, {"body": {"a": 1}}])
def test_options_that_are_none_are_redacted(options):
    assert redact("monitor", {"options": options}) == {"options": REDACTED}


def test_what_nobody_has_decided_on_is_redacted():
    row = {"name": "x", "brand_new": "secret", "empty": None}
    assert redact("monitor", row) == {"name": "x", "brand_new": REDACTED, "empty": None}
    assert redact("brand_new", {"id": "1"}) == {"id": REDACTED}
    assert redact("delivery", {"payload": {"a": 1}}) == {"payload": REDACTED}
    assert redact("monitor", None) is None
    assert not is_decided("monitor", "brand_new")
    assert not is_decided("brand_new", "id")
    assert all(is_decided(*each) for each in [("monitor", "name"), ("channel", "url"), ("delivery", "payload")])


@given(at=MOMENTS, seq=st.integers(1, 2**63 - 1))
def test_a_cursor_leads_back_to_where_it_was_made(at, seq):
    assert decode_position(Position(at, seq).encode()) == Position(at, seq)


@pytest.mark.parametrize(
    "cursor", ["", "x", "!!!!", "MjAyNi0wMS0wMVQwMDowMDowMHwx", Position(datetime(2026, 1, 1, tzinfo=UTC), 0).encode()]
)
def test_a_cursor_that_we_never_made_is_refused(cursor):
    with pytest.raises(ValueError, match="not a cursor of ours"):
        decode_position(cursor)


@given(text=st.text(max_size=100))
def test_no_text_is_taken_for_a_cursor(text):
    with pytest.raises(ValueError, match="not a cursor of ours"):
        decode_position(text)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_cell_begins_like_a_formula(begin):
    ((cell, other),) = csv.reader(io.StringIO(csv_lines([[f"{begin}cmd|' /C calc'!A0", "a"]]), newline=""))
    assert cell == f"'{begin}cmd|' /C calc'!A0"
    assert other == "a"


@given(records=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=4)))
def test_what_is_written_is_read_back_and_nothing_runs(records):
    read = list(csv.reader(io.StringIO(csv_lines(records), newline="")))
    assert [[cell.removeprefix("'") for cell in record] for record in read] == [
        [cell.removeprefix("'") for cell in record] for record in records
    ]
    assert not any(cell[:1] in {"=", "+", "-", "@", "\t", "\r"} - {""} for record in read for cell in record)


def test_cells_are_quoted_as_rfc_4180_says():
    assert csv_lines([["a,b", 'say "hi"', None, 7, "x\ny"]]) == '"a,b","say ""hi""",,7,"x\ny"\r\n'
