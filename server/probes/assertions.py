"""What must hold of an answer, in one small language that all kinds of check share.

    <subject> [<path or name>] <operator> [<value>]

    status in [200, 204]            header content-type contains "json"
    response_ms < 800               json $.queue.depth < 100
    body not matches "(?i)error"    answers == ["203.0.113.7"]

Values are JSON. Regular expressions are RE2's, which takes linear time whatever is written and whatever is read
(github.com/google/re2/wiki/Syntax). An assertion is read when a monitor is saved, and again for each check.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import re2

from server.probes.jsonpath import Path, PathError, read_path

MAX_ASSERTIONS = 20
MAX_LENGTH = 1000
# An automaton that outgrows its memory becomes a slow one, of a cost that grows with the program.
MAX_PATTERN_BYTES = 8 << 20
# Within this, RE2 refuses a program that is much too large in a few milliseconds, and not after half a second.
TRIAL_PATTERN_BYTES = 150_000
MAX_PATTERN_CLASSES = 10  # each `\pL` is read into 600 ranges
MAX_PATTERN_PROGRAM = 1500


class Subject(StrEnum):
    """What of an answer is looked at."""

    STATUS = "status"
    RESPONSE_MS = "response_ms"
    BODY = "body"
    JSON = "json"
    HEADER = "header"
    TLS_DAYS_LEFT = "tls_days_left"
    ANSWERS = "answers"
    RECEIVED = "received"
    LOSS_PERCENT = "loss_percent"


class Operator(StrEnum):
    """How it is held against the value. The longer ones come first, so that they are read first."""

    NOT_CONTAINS = "not contains"
    NOT_MATCHES = "not matches"
    NOT_IN = "not in"
    NOT_EXISTS = "not exists"
    CONTAINS = "contains"
    MATCHES = "matches"
    EXISTS = "exists"
    IN = "in"
    EQUAL = "=="
    UNEQUAL = "!="
    AT_MOST = "<="
    AT_LEAST = ">="
    BELOW = "<"
    ABOVE = ">"


ORDERING = frozenset({Operator.BELOW, Operator.AT_MOST, Operator.ABOVE, Operator.AT_LEAST})
_EQUALITY = frozenset({Operator.EQUAL, Operator.UNEQUAL})
_MEMBERSHIP = frozenset({Operator.IN, Operator.NOT_IN})
_CONTAINING = frozenset({Operator.CONTAINS, Operator.NOT_CONTAINS})
_MATCHING = frozenset({Operator.MATCHES, Operator.NOT_MATCHES})
EXISTENCE = frozenset({Operator.EXISTS, Operator.NOT_EXISTS})

_OF_NUMBERS = _EQUALITY | ORDERING | _MEMBERSHIP
_OF_TEXTS = _EQUALITY | _MEMBERSHIP | _CONTAINING | _MATCHING

NUMBERS = frozenset({Subject.STATUS, Subject.RESPONSE_MS, Subject.TLS_DAYS_LEFT, Subject.LOSS_PERCENT})
TEXTS = frozenset({Subject.BODY, Subject.RECEIVED})

_OPERATORS: dict[Subject, frozenset[Operator]] = {
    **dict.fromkeys(NUMBERS, _OF_NUMBERS),
    **dict.fromkeys(TEXTS, _OF_TEXTS),
    Subject.HEADER: _OF_TEXTS | ORDERING | EXISTENCE,
    Subject.JSON: frozenset(Operator),
    Subject.ANSWERS: _OF_TEXTS | EXISTENCE,
}

_SUBJECTS_OF = {
    "http": frozenset(
        {
            Subject.STATUS,
            Subject.RESPONSE_MS,
            Subject.BODY,
            Subject.JSON,
            Subject.HEADER,
            Subject.TLS_DAYS_LEFT,
        }
    ),
    "tcp": frozenset({Subject.RESPONSE_MS, Subject.RECEIVED}),
    "tls": frozenset({Subject.RESPONSE_MS, Subject.TLS_DAYS_LEFT}),
    "dns": frozenset({Subject.RESPONSE_MS, Subject.ANSWERS}),
    "icmp": frozenset({Subject.RESPONSE_MS, Subject.LOSS_PERCENT}),
}

_WORD = re.compile(r"[a-z_]+")
_BLANKS = re.compile(r"[ \t]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OPERATOR = re.compile("|".join(each.value.replace(" ", "[ \\t]+") for each in Operator))


@dataclass(frozen=True, slots=True)
class Assertion:
    """One assertion, read. `path` is json's, `header` is header's, in lower case; `pattern` is a compiled `value`."""

    text: str
    subject: Subject
    operator: Operator
    value: Any = None
    path: Path = ()
    header: str = ""
    pattern: Any = field(default=None, compare=False)


def subjects_of(kind: str) -> frozenset[Subject]:
    """Return what an assertion of a kind of check may look at; nothing for a kind that has no answer."""
    return _SUBJECTS_OF.get(kind, frozenset())


def parse(text: str, kind: str | None = None) -> Assertion:
    """Read an assertion, for checks of one kind or of any. Raises ValueError: at which column, what was expected."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"An assertion has at most {MAX_LENGTH} characters.")
    return _Reader(text).read(subjects_of(kind) if kind is not None else frozenset(Subject))


class _Reader:
    """Reads one text from left to right; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self, subjects: frozenset[Subject]) -> Assertion:
        self._skip_blanks()
        subject = self._read_subject(subjects)
        self._skip_blanks()
        path = self._read_path() if subject is Subject.JSON else ()
        header = self._read_header() if subject is Subject.HEADER else ""
        self._skip_blanks()
        operator = self._read_operator(subject)
        self._skip_blanks()
        value, pattern = None, None
        if operator in EXISTENCE:
            self._expect_end()
        else:
            column = self._at
            value = self._read_value()
            pattern = self._check_value(subject, operator, value, column)
        return Assertion(self._text.strip(), subject, operator, value, path, header, pattern)

    def _fail(self, expected: str, at: int | None = None) -> ValueError:
        return ValueError(f"Column {(self._at if at is None else at) + 1}: {expected}.")

    def _skip_blanks(self) -> None:
        found = _BLANKS.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _read_subject(self, subjects: frozenset[Subject]) -> Subject:
        word = _WORD.match(self._text, self._at)
        if word is None or word.group() not in subjects:
            names = ", ".join(each for each in Subject if each in subjects) or "nothing: this kind has no assertions"
            raise self._fail(f"expected what to look at, one of {names}")
        self._at = word.end()
        return Subject(word.group())

    def _read_path(self) -> Path:
        try:
            path, self._at = read_path(self._text, self._at)
        except PathError as error:
            raise self._fail(f"expected {error.expected}", error.position) from None
        return path

    def _read_header(self) -> str:
        name = _HEADER_NAME.match(self._text, self._at)
        if name is None:
            raise self._fail("expected a header's name, as in header content-type")
        self._at = name.end()
        return name.group().lower()

    def _read_operator(self, subject: Subject) -> Operator:
        allowed = _OPERATORS[subject]
        found = _OPERATOR.match(self._text, self._at)
        operator = Operator(" ".join(found.group().split())) if found else None
        if found is None or operator not in allowed:
            names = " ".join(each if " " not in each else f'"{each}"' for each in Operator if each in allowed)
            raise self._fail(f"expected an operator that {subject} knows: {names}")
        self._at = found.end()
        if operator[-1].isalpha() and self._text[self._at : self._at + 1] not in ("", " ", "\t", '"', "["):
            raise self._fail(f"expected a blank after {operator}")
        return operator

    def _read_value(self) -> Any:
        if self._at == len(self._text):
            raise self._fail('expected a value: a number, true, false, null, "a text" or [a list]')
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            words = 'expected a JSON value; texts stand in double quotes, as in "ok"'
            raise self._fail(f"{words} ({error.msg})", error.pos) from None
        except (RecursionError, ValueError) as error:
            raise self._fail(f"expected a JSON value ({str(error)[:80]})") from None
        if any("\ud800" <= letter <= "\udfff" for letter in _read_escapes(value)):
            raise self._fail("expected whole surrogate pairs", self._at - 1)
        self._expect_end()
        return value

    def _expect_end(self) -> None:
        self._skip_blanks()
        if self._at < len(self._text):
            raise self._fail("expected the end: one assertion stands alone")

    def _check_value(self, subject: Subject, operator: Operator, value: Any, column: int) -> Any:
        """Hold a value against what its operator takes; return the pattern where it is one."""
        if operator in _MATCHING:
            return self._compile(value, column)
        members = value if operator in _MEMBERSHIP else [value]
        if operator in _MEMBERSHIP and (not isinstance(value, list) or not value):
            raise self._fail(f"expected a list after {operator}, as in [200, 204]", column)
        is_right, right = _right_member(subject, operator)
        if not all(is_right(member) for member in members):
            raise self._fail(f"expected {right}", column)
        return None

    def _compile(self, value: Any, column: int) -> Any:
        if not isinstance(value, str):
            raise self._fail("expected a regular expression in double quotes", column)
        if value.lower().count("\\p") > MAX_PATTERN_CLASSES:
            raise self._fail(f"expected at most {MAX_PATTERN_CLASSES} Unicode classes", column)
        try:
            re2.compile(value, _TRIAL_OPTIONS)
            pattern = re2.compile(value, _PATTERN_OPTIONS)
            re2.purge()  # it would keep the last 128, each with all the memory it ever took
        except re2.error as error:
            reason = error.args[0].decode("utf-8", "replace") if error.args else "it is malformed"
            raise self._fail(f"expected a regular expression as RE2 knows it ({reason})", column) from None
        if pattern.programsize > MAX_PATTERN_PROGRAM:
            raise self._fail("expected a smaller regular expression; this one repeats too much", column)
        return pattern


def _read_escapes(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _make_pattern_options(max_bytes: int) -> Any:
    options = re2.Options()
    options.max_mem = max_bytes
    options.log_errors = False
    options.never_capture = True  # whether it matches is all that is asked
    return options


_TRIAL_OPTIONS = _make_pattern_options(TRIAL_PATTERN_BYTES)
_PATTERN_OPTIONS = _make_pattern_options(MAX_PATTERN_BYTES)


def is_number(value: Any) -> bool:
    """Tell whether a JSON value is a number; to Python, true is one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (list, dict))


def _is_text_or_texts(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def _is_anything(_: Any) -> bool:
    return True


def _right_member(subject: Subject, operator: Operator) -> tuple[Callable[[Any], bool], str]:
    """Return what a value, or each member of a list of them, must be; and that in words."""
    if operator in ORDERING and subject is not Subject.JSON:
        return is_number, "a number"
    if operator in ORDERING:
        return lambda value: is_number(value) or _is_text(value), "a number or a text"
    if operator in _CONTAINING and subject is Subject.JSON:
        return _is_scalar, "a text, a number, true, false or null"
    if subject in NUMBERS:
        return is_number, "a number"
    if subject is Subject.JSON:
        return _is_anything, "a JSON value"
    if subject is Subject.ANSWERS and operator in _EQUALITY:
        return _is_text_or_texts, "a text or a list of texts"
    return _is_text, "a text in double quotes"
