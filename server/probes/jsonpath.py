"""The part of JSONPath that points at one value: RFC 9535's singular queries, names and indices alone.

Nothing here searches: a path takes one step for each of its segments, whatever the document.
"""

import re
from typing import Any

Path = tuple[str | int, ...]

MISSING = object()  # what a path that leads nowhere finds: null is a value

MAX_SEGMENTS = 50
_NAME = re.compile(r"[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*")
_INDEX = re.compile(r"0|-?[1-9][0-9]{0,9}")
_BLANKS = re.compile(r"[ \t\n\r]*")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", "'": "'", '"': '"'}
_HEX = re.compile(r"[0-9A-Fa-f]{4}")


class PathError(ValueError):
    """A path that cannot be read: at which character of the text, and what is right."""

    def __init__(self, position: int, expected: str) -> None:
        super().__init__(f"character {position + 1}: {expected}")
        self.position = position
        self.expected = expected


def read_path(text: str, start: int) -> tuple[Path, int]:
    """Read the path that begins at `start`; return it and where it ended. Raises PathError."""
    if text[start : start + 1] != "$":
        raise PathError(start, "a JSON path, which begins with $, as in $.queue.depth")
    steps: list[str | int] = []
    position = start + 1
    while position < len(text) and text[position] in ".[":
        step, position = _read_step(text, position)
        steps.append(step)
        if len(steps) > MAX_SEGMENTS:
            raise PathError(position, f"at most {MAX_SEGMENTS} segments")
    return tuple(steps), position


def find(document: Any, path: Path) -> Any:
    """Return the value that a path points at, or MISSING."""
    for step in path:
        if isinstance(step, str):
            if not isinstance(document, dict) or step not in document:
                return MISSING
            document = document[step]
        else:
            if not isinstance(document, list) or not -len(document) <= step < len(document):
                return MISSING
            document = document[step]
    return document


def _read_step(text: str, position: int) -> tuple[str | int, int]:
    if text[position] == ".":
        name = _NAME.match(text, position + 1)
        if name is None:
            raise PathError(
                position + 1, 'a name, as in $.queue; write other names as $["queue-depth"]; a path points at one value'
            )
        return name.group(), name.end()
    position = _skip_blanks(text, position + 1)
    step: str | int
    if text[position : position + 1] in ("'", '"'):
        step, position = _read_quoted(text, position)
    else:
        index = _INDEX.match(text, position)
        if index is None:
            raise PathError(position, "an index or a quoted name, as in $[0] or $['name']; a path points at one value")
        step, position = int(index.group()), index.end()
    position = _skip_blanks(text, position)
    if text[position : position + 1] != "]":
        raise PathError(position, "] (a path points at one value: no slices, lists or filters)")
    return step, position + 1


def _skip_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    return found.end() if found else position


def _read_quoted(text: str, start: int) -> tuple[str, int]:
    letters: list[str] = []
    quote, position = text[start], start + 1
    while position < len(text):
        letter = text[position]
        if letter == quote:
            return "".join(letters), position + 1
        if letter == "\\":
            letter, position = _read_escape(text, position + 1)
            letters.append(letter)
            continue
        letters.append(letter)
        position += 1
    raise PathError(start, f"the closing quote {quote} of this name")


def _read_escape(text: str, position: int) -> tuple[str, int]:
    letter = text[position : position + 1]
    if letter in _ESCAPES:
        return _ESCAPES[letter], position + 1
    high, after = _read_hex(text, position)
    if not 0xD800 <= high <= 0xDFFF:
        return chr(high), after
    if high <= 0xDBFF and text[after : after + 1] == "\\":
        low, end = _read_hex(text, after + 1)
        if 0xDC00 <= low <= 0xDFFF:
            return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), end
    raise PathError(position, "a whole surrogate pair")


def _read_hex(text: str, position: int) -> tuple[int, int]:
    digits = _HEX.match(text, position + 1) if text[position : position + 1] == "u" else None
    if digits is None:
        raise PathError(position, "an escape: one of \\b \\f \\n \\r \\t \\/ \\\\ \\' \\\" \\uXXXX")
    return int(digits.group(), 16), digits.end()
