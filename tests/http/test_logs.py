"""Logs: one JSON object a line, whatever is logged, and a request does not fail for them."""

import json
import logging
import os
import sys
from uuid import UUID

import pytest

from server import logs
from server.logs import AccessLog, JsonFormatter, configure_logs


def formatted(*args: object, **more: object) -> dict[str, object]:
    logger = logging.Logger("tocsin.test")
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonFormatter().format(record))

    logger.addHandler(Kept())
    logger.warning(*args, **more)  # type: ignore[arg-type]
    (line,) = lines
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_a_line_says_when_how_grave_who_and_what():
    line = formatted("leased %d monitors", 7)
    assert (line["level"], line["logger"], line["event"]) == ("warning", "tocsin.test", "leased 7 monitors")
    assert str(line["time"]).endswith("Z")
    assert set(line) == {"time", "level", "logger", "event"}


def test_what_extra_names_is_in_it_and_what_is_absent_is_not():
    line = formatted("x", extra={"request_id": "abc", "monitor_id": UUID(int=1), "status": None, "where": {"a": [1]}})
    assert line["request_id"] == "abc"
    assert line["monitor_id"] == str(UUID(int=1))
    assert line["where"] == {"a": [1]}
    assert "status" not in line


@pytest.mark.parametrize("text", ["two\nlines", "\x00\x1b[31m", '"}', "ü\u2028🔔", "half \ud800 of a pair"])
def test_whatever_is_logged_is_one_line_of_json(text):
    assert formatted(text, extra={"detail": text, "object": object(), "count": 2**80})["event"] == text


def test_an_exception_is_in_its_line_with_its_trace():
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError:
        line = formatted("unhandled", exc_info=True)
    assert "ZeroDivisionError: a bug" in str(line["exception"])
    assert "test_logs.py" in str(line["exception"])


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 1), ("INFO", 1), ("WARNING", 0), ("ERROR", 0)])
def test_requests_are_noted_where_the_level_lets_them(level, lines, capfd):
    access_log = AccessLog(level)
    if access_log.is_on:
        access_log.note({"path": "/"})
    assert len(capfd.readouterr().out.splitlines()) == lines


def test_a_request_does_not_fail_because_nobody_reads_the_log(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(logs, "_STANDARD_OUTPUT", writing)
    try:
        AccessLog("INFO").note({"path": "/"})
    finally:
        os.close(writing)


def test_libraries_that_log_urls_are_quietened():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logs("DEBUG")
        (handler,) = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream is sys.stdout
        assert not logging.getLogger("urllib3.connectionpool").isEnabledFor(logging.DEBUG)
        assert logging.getLogger("tocsin").isEnabledFor(logging.DEBUG)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
