"""Whatever people write and whatever servers answer: nothing but a refusal, nothing but a finding."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from server.probes.assertions import Operator, Subject, parse, subjects_of
from server.probes.findings import Evidence, find_failure, same, weigh
from server.probes.jsonpath import MISSING, find, read_path

EXAMPLES = (Path(__file__).parents[2] / "docs" / "assertions.md").read_text().split("```")[1].strip().splitlines()

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from([*Subject, *Operator, "$", ".a", "[0]", '["a"]', '"a"', "[1, 2]", "5", "null", "(", " ", "x-a"])
lines = st.lists(words | st.text(max_size=3), max_size=7).map(" ".join) | st.text(max_size=60)


@given(lines)
def test_a_text_is_read_or_refused(text):
    try:
        read = parse(text)
    except ValueError as refusal:
        assert str(refusal).startswith("Column ")
    else:
        assert parse(read.text) == read


@given(lines, st.binary(max_size=60) | documents.map(lambda value: json.dumps(value).encode()), st.text(max_size=40))
def test_whatever_is_answered_there_is_a_finding(text, body, content_type):
    try:
        read = parse(text)
    except ValueError:
        return
    headers = {"content-type": content_type, "x-a": content_type}
    evidence = Evidence(200, 5.0, body, headers, 3, (content_type,), body, 0.0)
    (finding,) = weigh([read], evidence)
    assert finding.observed is None or (len(finding.observed) <= 200 and finding.observed.isprintable())
    assert (find_failure([finding]) is None) is finding.holds


@given(documents)
def test_every_value_is_the_same_as_itself_and_as_its_spelling(document):
    assert same(document, document)
    text = f"json $ == {json.dumps(document)}"
    if len(text) <= 1000:
        (finding,) = weigh([parse(text)], Evidence(body=json.dumps(document).encode()))
        assert finding.holds


@given(documents, st.data())
def test_a_path_finds_what_it_was_made_from(document, data):
    path, value = "$", document
    while isinstance(value, list | dict) and value:
        step = data.draw(st.sampled_from(range(len(value)) if isinstance(value, list) else sorted(value)))
        path, value = f"{path}[{json.dumps(step)}]", value[step]
    steps, end = read_path(path, 0)
    assert end == len(path)
    assert find(document, steps) is value
    assert find(document, (*steps, "no such name")) is MISSING


def test_every_example_of_the_manual_is_one_and_every_subject_has_one():
    assert {parse(line).subject for line in EXAMPLES} == set(Subject)


def test_every_subject_belongs_to_a_kind():
    assert frozenset().union(*(subjects_of(kind) for kind in ("http", "tcp", "tls", "dns", "icmp"))) == set(Subject)
