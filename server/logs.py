"""Logs: one JSON object a line on standard output, so that a platform's log search needs no parser."""

import json
import logging
import os
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, event, and whatever `extra` named."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(
            (name, value) for name, value in vars(record).items() if name not in _STANDARD and value is not None
        )
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()
        except TypeError:  # half of a surrogate pair, an integer beyond 64 bits: rather slowly than not at all
            return json.dumps(line, default=str)


class AccessLog:
    """One line for each request, written without a LogRecord, which would cost six times as much CPU."""

    def __init__(self, level: str) -> None:
        self.is_on = level in {"DEBUG", "INFO"}

    def note(self, line: dict[str, object]) -> None:
        """Write one line; nobody's request fails because nobody reads it."""
        line = {"time": datetime.now(UTC), **_ACCESS, **line}
        with suppress(OSError):
            os.write(_STANDARD_OUTPUT, orjson.dumps(line, option=_LINE))


_STANDARD_OUTPUT = 1
_ACCESS = {"level": "info", "logger": "tocsin.access", "event": "request"}
_LINE = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


def configure_logs(level: str) -> None:
    """Send every record of this process to standard output as JSON. Libraries that log URLs are quietened."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "urllib3", "hpack"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
