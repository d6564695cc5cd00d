"""What was seen, held against the assertions. Pure, and bounded: whatever an answer holds, its time is linear."""

import codecs
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from server.features.checks.rules import ErrorKind, Finding
from server.probes.assertions import ORDERING, Assertion, Operator, Subject, is_number
from server.probes.jsonpath import MISSING, find
from server.probes.trouble import Trouble

MAX_OBSERVED = 200
# A reader of JSON holds up everybody else in the process: 1 MB of `[[],[],[],…` would take a quarter of a second.
MAX_JSON_VALUES = 100_000
# Characters, times the instructions of the pattern that reads them: about 3 s at worst.
MAX_MATCH_COST = 300_000_000
_SHOWN_ASSERTION = 120  # of the 300 characters of a detail, so that what was observed is in them too

_NUMBER = re.compile(r"\s*[-+]?\d{1,18}(\.\d{1,18})?\s*", re.ASCII)
# Python's codecs are more than charsets: some of them (idna, punycode) take quadratic time.
_CHARSET = re.compile(
    r"utf_?(8|16|32)(_?[bl]e)?|ascii|iso8859_\d+|cp\d+|koi8_[rtu]|mac_\w+|big5\w*|gb\w+|hz|euc_\w+|shift_jis\w*|iso2022_\w+"
)
_CHARSET_PARAMETER = re.compile(r';\s*charset\s*=\s*"?([A-Za-z0-9_.:+-]{1,40})"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a check has to show. None: the kind does not know it, or there was none.

    `body` and `received` are as they came; `headers` are by lower-case name, repeated ones joined by `, `.
    """

    status: int | None = None
    response_ms: float | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    tls_days_left: int | None = None
    answers: Sequence[str] | None = None
    received: bytes | None = None
    loss_percent: float | None = None


def weigh(
    assertions: Sequence[Assertion], evidence: Evidence, given_up: Callable[[], bool] = lambda: False
) -> tuple[Finding, ...]:
    """Hold each assertion against what was seen, in their order; stop in between where nobody waits any more."""
    texts = _Texts(evidence, assertions)
    findings = []
    for assertion in assertions:
        if given_up():
            break
        observed = _bound(assertion, texts.observe(assertion))
        findings.append(Finding(assertion.text, _show(assertion, observed), holds(assertion, observed)))
    return tuple(findings)


def estimate_cost(assertions: Sequence[Assertion], evidence: Evidence) -> int:
    """Return how much work `weigh` may be at worst: characters read, times the size of the automata that read them."""
    letters = len(evidence.body or b"") + len(evidence.received or b"")
    letters += sum(map(len, evidence.headers.values())) + sum(map(len, evidence.answers or ()))
    automata: int = sum(each.pattern.programsize for each in assertions if each.pattern is not None)
    return letters * (1 + automata)


def find_failure(findings: Sequence[Finding]) -> Trouble | None:
    """Return the first assertion that does not hold, as people read it, or None."""
    for finding in findings:
        if not finding.holds:
            text = finding.assertion
            shown = text if len(text) <= _SHOWN_ASSERTION else text[: _SHOWN_ASSERTION - 1] + "…"
            was = "there is none" if finding.observed is None else f"was {finding.observed}"
            return Trouble(ErrorKind.ASSERTION, f"{shown}: {was}")
    return None


def count_days(expires_at: datetime | None, now: datetime) -> int | None:
    """Return how many whole days are left; negative where the time is past."""
    return None if expires_at is None else math.floor((expires_at - now).total_seconds() / 86_400)


@dataclass(frozen=True, slots=True)
class Unread:
    """What was there, and was not looked at, and why: nothing is true of it."""

    reason: str


class _Texts:
    """Reads bodies only where an assertion does, and once."""

    def __init__(self, evidence: Evidence, assertions: Sequence[Assertion]) -> None:
        subjects = {assertion.subject for assertion in assertions}
        self._evidence = evidence
        self._body: Any = MISSING
        self._document: Any = MISSING
        if evidence.body is not None and subjects & {Subject.BODY, Subject.JSON}:
            self._body = decode(evidence.body, evidence.headers.get("content-type", ""))
        if Subject.JSON in subjects and self._body is not MISSING:
            self._document = _read_json(self._body)

    def observe(self, assertion: Assertion) -> Any:
        """Return what an assertion looks at, or MISSING."""
        subject, evidence = assertion.subject, self._evidence
        if subject is Subject.JSON:
            return self._document if isinstance(self._document, Unread) else find(self._document, assertion.path)
        if subject is Subject.BODY:
            return self._body
        if subject is Subject.HEADER:
            return evidence.headers.get(assertion.header, MISSING)
        if subject is Subject.RECEIVED:
            return MISSING if evidence.received is None else evidence.received.decode("utf-8", "replace")
        if subject is Subject.ANSWERS:
            return list(evidence.answers) if evidence.answers else MISSING
        value = getattr(evidence, subject.value)
        return MISSING if value is None else value


def decode(body: bytes, content_type: str) -> str:
    """Return a body as text: in the charset its Content-Type names, else UTF-8; what is neither becomes U+FFFD."""
    named = _CHARSET_PARAMETER.search(content_type)
    charset = "utf-8"
    if named is not None:
        try:
            known = codecs.lookup(named.group(1)).name
        except LookupError:
            known = ""
        if _CHARSET.fullmatch(known.replace("-", "_")):
            charset = known
    return body.decode(charset, "replace").removeprefix("\ufeff")


def _bound(assertion: Assertion, observed: Any) -> Any:
    """Return what was observed, or that it is too long for the pattern that would read it."""
    if assertion.pattern is None or not isinstance(observed, str):
        return observed
    if len(observed) * assertion.pattern.programsize <= MAX_MATCH_COST:
        return observed
    return Unread(f"{len(observed):,} characters, too many for this regular expression")


def _read_json(text: str) -> Any:
    if sum(map(text.count, ",[{")) > MAX_JSON_VALUES:
        return Unread(f"a body of more than {MAX_JSON_VALUES:,} values")
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return MISSING


def holds(assertion: Assertion, observed: Any) -> bool:
    """Tell whether an assertion is true of a value. What is not there satisfies `not exists` alone.

    A value of another type than the operator's is simply not what was asserted.
    """
    operator, value = assertion.operator, assertion.value
    if isinstance(observed, Unread):
        return False
    if operator in (Operator.EXISTS, Operator.NOT_EXISTS):
        return (observed is not MISSING) is (operator is Operator.EXISTS)
    if observed is MISSING:
        return False
    if assertion.subject is Subject.ANSWERS:
        return _answers_hold(assertion, observed)
    if operator in (Operator.EQUAL, Operator.UNEQUAL):
        return same(observed, value) is (operator is Operator.EQUAL)
    if operator in (Operator.IN, Operator.NOT_IN):
        return any(same(observed, member) for member in value) is (operator is Operator.IN)
    if operator in ORDERING:
        return _is_ordered(operator, _as_number(observed) if assertion.subject is Subject.HEADER else observed, value)
    if operator in (Operator.MATCHES, Operator.NOT_MATCHES):
        return isinstance(observed, str) and _matches(assertion, observed) is (operator is Operator.MATCHES)
    contained = _contains(observed, value)
    return contained is not None and contained is (operator is Operator.CONTAINS)


def same(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if is_number(left) and is_number(right):
        return bool(left == right)
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return bool(left == right)


def _answers_hold(assertion: Assertion, answers: Sequence[str]) -> bool:
    """Hold a set of answers, whose order means nothing, against a text, or a list of them."""
    operator, value = assertion.operator, assertion.value
    if operator in (Operator.EQUAL, Operator.UNEQUAL):
        expected = {value} if isinstance(value, str) else set(value)
        return (set(answers) == expected) is (operator is Operator.EQUAL)
    if operator is Operator.IN:
        return set(answers) <= set(value)
    if operator is Operator.NOT_IN:
        return not set(answers) & set(value)
    if operator in (Operator.CONTAINS, Operator.NOT_CONTAINS):
        return (value in answers) is (operator is Operator.CONTAINS)
    return any(_matches(assertion, answer) for answer in answers) is (operator is Operator.MATCHES)


def _matches(assertion: Assertion, text: str) -> bool:
    return assertion.pattern.search(text) is not None


def _contains(observed: Any, value: Any) -> bool | None:
    """Tell whether a text or a list holds a value; None where neither is asked."""
    if isinstance(observed, str):
        return value in observed if isinstance(value, str) else None
    if isinstance(observed, list):
        return any(same(member, value) for member in observed)
    return None


def _is_ordered(operator: Operator, observed: Any, value: Any) -> bool:
    both_numbers = is_number(observed) and is_number(value)
    if not both_numbers and not (isinstance(observed, str) and isinstance(value, str)):
        return False
    if operator is Operator.BELOW:
        return bool(observed < value)
    if operator is Operator.AT_MOST:
        return bool(observed <= value)
    if operator is Operator.ABOVE:
        return bool(observed > value)
    return bool(observed >= value)


def _as_number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _show(assertion: Assertion, observed: Any) -> str | None:
    """Return what was observed as text: texts as they are, of JSON its own spelling, so that "5" is not 5."""
    if observed is MISSING:
        return None
    if isinstance(observed, Unread):
        text = observed.reason
    elif assertion.subject is Subject.ANSWERS:
        text = ", ".join(observed)
    elif isinstance(observed, str) and assertion.subject is not Subject.JSON:
        text = observed
    else:
        text = _spell(observed)
    flat = "".join(letter if letter.isprintable() else " " for letter in text[: MAX_OBSERVED + 1])
    return flat if len(flat) <= MAX_OBSERVED else flat[: MAX_OBSERVED - 1] + "…"


def _spell(value: Any) -> str:
    """Return a JSON value's spelling, no more of it than is shown: a document may be large, and deep."""
    text = ""
    for piece in _ENCODER.iterencode(value):
        text += piece[: MAX_OBSERVED + 1]
        if len(text) > MAX_OBSERVED:
            break
    return text


_ENCODER = json.JSONEncoder(ensure_ascii=False)
