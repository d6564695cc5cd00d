"""The language: what is read, what is refused and where, and what each operator means."""

import pytest

from server.probes.assertions import MAX_LENGTH, Operator, Subject, parse, subjects_of
from server.probes.findings import Evidence, find_failure, weigh

# --- reading


@pytest.mark.parametrize(
    ("text", "subject", "path", "header", "operator", "value"),
    [
        ("status == 200", Subject.STATUS, (), "", Operator.EQUAL, 200),
        ("status in [200, 204]", Subject.STATUS, (), "", Operator.IN, [200, 204]),
        ("  response_ms<800.5  ", Subject.RESPONSE_MS, (), "", Operator.BELOW, 800.5),
        ('body contains "ok"', Subject.BODY, (), "", Operator.CONTAINS, "ok"),
        ('body not  contains "\\u00fc"', Subject.BODY, (), "", Operator.NOT_CONTAINS, "ü"),
        ('header Content-Type matches "^text/"', Subject.HEADER, (), "content-type", Operator.MATCHES, "^text/"),
        ("header x-cache exists", Subject.HEADER, (), "x-cache", Operator.EXISTS, None),
        ("json $.queue.depth <= 100", Subject.JSON, ("queue", "depth"), "", Operator.AT_MOST, 100),
        ("json $==null", Subject.JSON, (), "", Operator.EQUAL, None),
        ('json $["a b"][-1].c != {"d": [1]}', Subject.JSON, ("a b", -1, "c"), "", Operator.UNEQUAL, {"d": [1]}),
        ("tls_days_left > 14", Subject.TLS_DAYS_LEFT, (), "", Operator.ABOVE, 14),
        ('answers == ["192.0.2.1", "192.0.2.2"]', Subject.ANSWERS, (), "", Operator.EQUAL, ["192.0.2.1", "192.0.2.2"]),
        ('received contains"PONG"', Subject.RECEIVED, (), "", Operator.CONTAINS, "PONG"),
        ("loss_percent >= 0", Subject.LOSS_PERCENT, (), "", Operator.AT_LEAST, 0),
    ],
)
def test_what_is_written_is_what_is_read(text, subject, path, header, operator, value):
    read = parse(text)
    assert (read.subject, read.path, read.header, read.operator, read.value) == (subject, path, header, operator, value)
    assert read.text == text.strip()


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "Column 1: expected what to look at, one of status, response_ms, body"),
        ("stats == 200", "Column 1: expected what to look at"),
        ("statuses == 200", "Column 1: expected what to look at"),
        ("status 200", 'Column 8: expected an operator that status knows: "not in" in == != <= >= < >'),
        ("status contains 2", "Column 8: expected an operator that status knows"),
        ("body exists", "Column 6: expected an operator that body knows"),
        ("status ==", "Column 10: expected a value"),
        ("status == ok", 'Column 11: expected a JSON value; texts stand in double quotes, as in "ok"'),
        ("status == 'ok'", "Column 11: expected a JSON value"),
        ('status == "200"', "Column 11: expected a number"),
        ("status == true", "Column 11: expected a number"),
        ("status == NaN", "Column 11: expected a JSON value"),
        ("status in 200", "Column 11: expected a list after in, as in"),
        ("status in []", "Column 11: expected a list after in, as in"),
        ('status in [200, "ok"]', "Column 11: expected a number"),
        ("status == 200 or 201", "Column 15: expected the end: one assertion stands alone"),
        ("header x exists 1", "Column 17: expected the end"),
        ("header x existsabc", "Column 16: expected a blank after exists"),
        ("header : exists", "Column 8: expected a header's name"),
        ('header x < "5"', "Column 12: expected a number"),
        ('body matches "\\ud800"', "Column 21: expected whole surrogate pairs"),
        ("body == 5", "Column 9: expected a text in double quotes"),
        ("answers == 5", "Column 12: expected a text or a list of texts"),
        ('answers == ["a", 5]', "Column 12: expected a text or a list of texts"),
        ("json queue == 1", "Column 6: expected a JSON path, which begins with"),
        ("json $..queue == 1", "Column 8: expected a name, as in"),
        ("json $.* == 1", "Column 8: expected a name, as in"),
        ("json $ [0] == 1", "Column 8: expected an operator"),
        ("json $.queue-depth == 1", "Column 13: expected an operator"),
        ("json $[1:2] == 1", "Column 9: expected ]"),
        ("json $[?@.a] == 1", "Column 8: expected an index or a quoted name"),
        ("json $[01] == 1", "Column 9: expected ]"),
        ("json $['a == 1", "Column 8: expected the closing quote"),
        ("json $['\\x'] == 1", "Column 10: expected an escape"),
        ("json $['\\ud800'] == 1", "Column 10: expected a whole surrogate pair"),
        ("json $" + "[0]" * 51 + " == 1", "expected at most 50 segments"),
        ("json $.a < true", "Column 12: expected a number or a text"),
        ("json $.a contains [1]", "Column 19: expected a text, a number, true, false or null"),
        ("body matches 5", "Column 14: expected a regular expression in double quotes"),
        ('body matches "("', "Column 14: expected a regular expression as RE2 knows it (missing ): ()"),
        ('body matches "(?=a)"', "Column 14: expected a regular expression as RE2 knows it"),
        ('body matches "(a)\\\\1"', "Column 14: expected a regular expression as RE2 knows it"),
        ('body matches "((a?){100}){100}"', "Column 14: expected a regular expression as RE2 knows it"),
        (
            'body matches "(\\\\pL{10}){10}"',
            "Column 14: expected a regular expression as RE2 knows it (pattern too large",
        ),
        ('body matches "(a?){900}"', "Column 14: expected a smaller regular expression"),
        ('body matches "' + "\\\\pL" * 11 + '"', "Column 14: expected at most 10 Unicode classes"),
        ("body == " + "[" * 900, "Column 909: expected a JSON value"),
        ("x" * (MAX_LENGTH + 1), "An assertion has at most 1000 characters."),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_column_and_what_is_right(text, refusal):
    with pytest.raises(ValueError, match=r"^(Column|An assertion)") as refused:
        parse(text)
    assert refusal in str(refused.value)
    assert len(str(refused.value)) < 300


SUBJECTS = {
    "http": {"status", "response_ms", "body", "json", "header", "tls_days_left"},
    "tcp": {"response_ms", "received"},
    "tls": {"response_ms", "tls_days_left"},
    "dns": {"response_ms", "answers"},
    "icmp": {"response_ms", "loss_percent"},
    "heartbeat": set(),
}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_a_kind_has_its_own_subjects_and_no_others(kind):
    assert subjects_of(kind) == SUBJECTS[kind]
    for subject in Subject:
        try:
            parse(f"{subject} nonsense", kind)
        except ValueError as refusal:
            is_known = not str(refusal).startswith("Column 1: expected what to look at")
        assert is_known is (subject in SUBJECTS[kind])


# --- each operator, of each kind of value

DOCUMENT = (
    b'{"n": 5, "f": 5.0, "t": "abc", "five": "5", "yes": true, "no": null, "one": 1, "l": [1, "a", null, true],'
    b' "o": {"a": [1, 2]}, "at": "2026-03-01", "big": 123456789012345678901234567890}'
)
EVIDENCE = Evidence(
    status=204,
    response_ms=120.5,
    body=DOCUMENT,
    headers={"content-type": "application/json", "age": " 7 ", "x-empty": ""},
    tls_days_left=-1,
    answers=("10 mail.example.com", "20 spare.example.com"),
    received=b"220 mail ESMTP\r\n",
    loss_percent=33.3,
)

HOLD = [
    # numbers
    "status == 204",
    "status == 204.0",
    "status != 200",
    "status < 205",
    "status <= 204",
    "status > 203.9",
    "status >= 204",
    "status in [200, 204]",
    "status not in [200]",
    "response_ms < 200",
    "tls_days_left < 0",
    "loss_percent > 33",
    # texts
    'received == "220 mail ESMTP\\r\\n"',
    'received != ""',
    'received contains "ESMTP"',
    'received not contains "QUIT"',
    'received matches "^220 .*\\r\\n$"',
    'received matches "(?i)esmtp"',
    'received not matches "^5"',
    'received in ["a", "220 mail ESMTP\\r\\n"]',
    'received not in ["a"]',
    'body contains "\\"t\\": \\"abc\\""',
    # headers
    'header Content-Type == "application/json"',
    'header content-type contains "json"',
    'header content-type in ["application/json"]',
    "header content-type exists",
    "header x-empty exists",
    'header x-empty == ""',
    "header x-none not exists",
    "header age < 8",
    "header age >= 7",
    # json, by type
    "json $.n == 5",
    "json $.n == 5.0",
    "json $.f == 5",
    "json $.n != 6",
    'json $.n != "5"',
    "json $.yes == true",
    "json $.yes != 1",
    "json $.one != true",
    "json $.no == null",
    "json $.no exists",
    "json $.nothing not exists",
    "json $.t.deeper not exists",
    "json $.l[4] not exists",
    "json $.l[-4] == 1",
    "json $.n > 4.9",
    'json $.t == "abc"',
    'json $.t < "abd"',
    'json $.at >= "2026-02-28"',
    'json $.t contains "b"',
    'json $.t not contains "x"',
    'json $.t matches "^a.c$"',
    'json $.t not matches "^b"',
    'json $.t in ["abc", 5]',
    "json $.n in [1, 5]",
    "json $.n not in [1, true]",
    'json $.l contains "a"',
    "json $.l contains 1",
    "json $.l contains null",
    'json $.l not contains "b"',
    'json $.o == {"a": [1, 2]}',
    "json $.o.a == [1, 2]",
    "json $.o.a != [2, 1]",
    "json $.o.a in [[1], [1, 2]]",
    "json $.big > 100",
    # dns answers: a set
    "answers exists",
    'answers == ["20 spare.example.com", "10 mail.example.com"]',
    'answers != ["10 mail.example.com"]',
    'answers != "10 mail.example.com"',
    'answers contains "10 mail.example.com"',
    'answers not contains "mail.example.com"',
    'answers matches "^10 "',
    'answers not matches "evil"',
    'answers in ["10 mail.example.com", "20 spare.example.com", "30 other.example.com"]',
    'answers not in ["30 other.example.com"]',
]

DO_NOT_HOLD = [
    ("status == 200", "204"),
    ("status != 204", "204"),
    ("status < 204", "204"),
    ("status <= 203", "204"),
    ("status > 204", "204"),
    ("status >= 205", "204"),
    ("status in [200]", "204"),
    ("status not in [204]", "204"),
    ("response_ms < 100", "120.5"),
    ('received == "220 mail ESMTP"', "220 mail ESMTP  "),
    ('received contains "esmtp"', "220 mail ESMTP  "),
    ('received not contains "ESMTP"', "220 mail ESMTP  "),
    ('received matches "^mail"', "220 mail ESMTP  "),
    ('received not matches "mail"', "220 mail ESMTP  "),
    ("header content-type < 5", "application/json"),
    ("header x-empty < 5", ""),
    ("header content-type not exists", "application/json"),
    # what is not there satisfies `not exists` alone
    ("header x-none exists", None),
    ('header x-none == ""', None),
    ('header x-none != "a"', None),
    ('header x-none not contains "a"', None),
    ('header x-none not in ["a"]', None),
    ('header x-none not matches "a"', None),
    ("json $.nothing exists", None),
    ("json $.nothing == null", None),
    ("json $.nothing < 5", None),
    ("json $.l[9] == 1", None),
    ("json $.t[0] == 1", None),
    ('json $["l"]["0"] == 1', None),
    # another type is not an error, and is seen for what it is
    ('json $.n == "5"', "5"),
    ("json $.five == 5", '"5"'),
    ("json $.five < 6", '"5"'),
    ("json $.yes == 1", "true"),
    ("json $.one == true", "1"),
    ("json $.yes > 0", "true"),
    ("json $.no < 5", "null"),
    ("json $.no not exists", "null"),
    ('json $.n contains "5"', "5"),
    ('json $.n not contains "6"', "5"),
    ('json $.n matches "5"', "5"),
    ('json $.n not matches "6"', "5"),
    ("json $.t contains 5", '"abc"'),
    ("json $.l contains false", '[1, "a", null, true]'),
    ('json $.o == {"a": [1, 2], "b": 1}', '{"a": [1, 2]}'),
    ('json $.o contains "a"', '{"a": [1, 2]}'),
    ('answers == ["10 mail.example.com"]', "10 mail.example.com, 20 spare.example.com"),
    ('answers == "10 mail.example.com"', "10 mail.example.com, 20 spare.example.com"),
    ('answers not contains "10 mail.example.com"', "10 mail.example.com, 20 spare.example.com"),
    ('answers matches "evil"', "10 mail.example.com, 20 spare.example.com"),
    ('answers in ["10 mail.example.com"]', "10 mail.example.com, 20 spare.example.com"),
    ('answers not in ["10 mail.example.com"]', "10 mail.example.com, 20 spare.example.com"),
    ("answers not exists", "10 mail.example.com, 20 spare.example.com"),
]


@pytest.mark.parametrize("text", HOLD)
def test_an_assertion_holds(text):
    (finding,) = weigh([parse(text)], EVIDENCE)
    assert (finding.assertion, finding.holds) == (text, True)


@pytest.mark.parametrize(("text", "observed"), DO_NOT_HOLD)
def test_an_assertion_does_not_hold_and_says_what_was_observed(text, observed):
    (finding,) = weigh([parse(text)], EVIDENCE)
    assert (finding.assertion, finding.observed, finding.holds) == (text, observed, False)


def test_every_operator_stands_in_both_tables():
    assert {parse(text).operator for text in HOLD} == set(Operator)
    assert {parse(text).operator for text, _ in DO_NOT_HOLD} == set(Operator)


# --- what was seen


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"a": 1', b'{"a": NaN}', b"[" * 5000, b'"\\ud800"', b"\xff\xfe\xfa"]
)
def test_a_body_that_is_not_json_has_no_values(body):
    evidence = Evidence(body=body)
    assert [finding.holds for finding in weigh([parse("json $ exists"), parse("json $ not exists")], evidence)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/html", "grün".encode(), "grün"),
        ("text/html; charset=utf-8", b"\xef\xbb\xbfgr\xc3\xbcn", "grün"),
        ("text/html; charset=ISO-8859-1", b"gr\xfcn", "grün"),
        ('text/html; Charset="windows-1252"', b"\x80", "€"),
        ("text/html; charset=utf-16", "grün".encode("utf-16"), "grün"),
        ("text/html; charset=Shift_JIS", "監視".encode("shift_jis"), "監視"),
        ("text/html; charset=no-such-charset", "grün".encode(), "grün"),
        ("text/html; charset=punycode", "grün".encode(), "grün"),
        ("text/html; charset=zlib", "grün".encode(), "grün"),
        ("text/html; charset=unicode_escape", b"\\u0041", "\\u0041"),
        ("text/html; charset=us-ascii", b"gr\xfcn", "gr\ufffdn"),
        ("", b"gr\xfcn", "gr\ufffdn"),
    ],
)
def test_a_body_is_read_in_its_charset(content_type, body, text):
    evidence = Evidence(body=body, headers={"content-type": content_type})
    quoted = text.replace("\\", "\\\\")
    (finding,) = weigh([parse(f'body == "{quoted}"')], evidence)
    assert finding.holds, finding.observed


@pytest.mark.parametrize("body", [b"[" + b"[]," * 60_000 + b"0]", b'{"a": [' + b"1," * 100_000 + b"1]}"])
def test_a_document_of_too_many_values_is_not_read_and_nothing_is_true_of_it(body):
    for finding in weigh([parse("json $ exists"), parse("json $.a not exists")], Evidence(body=body)):
        assert (finding.observed, finding.holds) == ("a body of more than 100,000 values", False)


def test_a_text_too_long_for_a_large_pattern_is_not_read_and_nothing_is_true_of_it():
    large = parse('body matches "x{1,500}"')
    (finding,) = weigh([large], Evidence(body=b"x" * 1_000_000))
    assert (finding.observed, finding.holds) == ("1,000,000 characters, too many for this regular expression", False)
    (finding,) = weigh([large], Evidence(body=b"x" * 100_000))
    assert finding.holds


def test_what_was_observed_is_printable_and_bounded():
    long = b'{"a": "' + b"x" * 300_000 + b'", "deep": ' + b"[" * 900 + b"]" * 900 + b"}"
    texts = ["json $ == 1", "json $.a == 1", "json $.deep == 1", 'body == "x"']
    for finding in weigh([parse(text) for text in texts], Evidence(body=long)):
        assert finding.observed is not None
        assert len(finding.observed) == 200
        assert finding.observed.endswith("…")
    (finding,) = weigh([parse('received == ""')], Evidence(received=b"a\x00\x1b[31m\r\n\xff"))
    assert finding.observed == "a  [31m  \ufffd"


def test_the_first_that_does_not_hold_is_told_with_what_was_observed():
    findings = weigh([parse("status == 204"), parse("json $.n < 5"), parse("json $.x == 1")], EVIDENCE)
    assert find_failure(findings) == ("assertion", "json $.n < 5: was 5")
    assert find_failure(findings[2:]) == ("assertion", "json $.x == 1: there is none")
    assert find_failure(findings[:1]) is None


def test_a_long_assertion_leaves_room_for_what_was_observed():
    findings = weigh([parse(f'received contains "{"x" * 900}"')], EVIDENCE)
    failure = find_failure(findings)
    assert failure is not None
    assert failure.detail.endswith("…: was 220 mail ESMTP  ")


def test_nothing_more_is_weighed_once_nobody_waits():
    assert weigh([parse("status == 204")] * 3, EVIDENCE, given_up=lambda: True) == ()
