"""YAML as people write it: what each word means, with its line, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cli.documents import DEEPEST, MOST_NODES, UnusableFile, read_document, write_document

MEANINGS = [
    ("30", 30),
    ("-7", -7),
    ("1.5", 1.5),
    ("true", True),
    ("null", None),
    ("~", None),
    ("", None),
    ("'30'", "30"),
    ("!!str 30", "30"),
    ("no", "no"),
    ("on", "on"),
    ("012", "012"),
    ("0x1f", "0x1f"),
    ("1e3", "1e3"),
    ("1:30", "1:30"),
    ("2026-12-01", "2026-12-01"),
    (".inf", ".inf"),
    ("[a, {b: c}]", ["a", {"b": "c"}]),
]


@pytest.mark.parametrize(("text", "value"), MEANINGS)
def test_a_word_means_what_it_looks_like(text, value):
    assert read_document(f"a: {text}").plain() == {"a": value}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
)
REFUSED = [
    ("a: 1\nb: 2\na: 3", 3, "a stands here a second time; the first is in line 1."),
    ("a: &x\n  b: *x", 2, "*x refers to nothing that stands complete before it."),
    ("a: *x", 1, "*x refers to nothing"),
    ("a: !!python/object:os.system {}", 1, "The tag tag:yaml.org,2002:python/object:os.system is not read here"),
    ("a: !!binary aGk=", 1, "is not read here"),
    ("a: 1\n---\nb: 2", 2, "A second document begins here; a file holds one."),
    ("", 1, "The file is empty."),
    ("a: [1", 1, "This is not YAML"),
    ("a:\n\t- 1", 2, "This is not YAML"),
    ("? [a]\n: b", 1, "A name is expected here"),
    ("<<: 7", 1, "<< takes a mapping"),
    ("a: \x01", 0, "This is not YAML"),
    ("a: " + "[" * (DEEPEST + 1), 1, "nested more than"),
    ("a: " + "[" * 100_000, 1, "nested more than"),
    (BOMB, 6, f"this holds more than {MOST_NODES:,} values"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED, ids=[each[2][:30] for each in REFUSED])
def test_what_cannot_be_read_is_refused_with_its_line(text, line, words):
    with pytest.raises(UnusableFile) as refused:
        read_document(text)
    [problem] = refused.value.problems
    assert words in problem.detail
    assert problem.line in (line, line + 1), "libyaml says where it noticed"


def test_anchors_spare_repetition_and_own_members_win():
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 5\n"
    assert read_document(text).plain()["z"] == {"a": 5, "b": 2, "c": 4}


def test_a_path_leads_to_a_line_as_far_as_it_goes():
    node = read_document("a:\n  b:\n    - 1\n    - c: 2\n")
    assert [node.line_of(path) for path in [("a",), ("a", "b", 1, "c"), ("a", "b", 7), ("a", "z")]] == [1, 4, 2, 1]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab:#- ~{", max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
@settings(deadline=None)
def test_what_is_written_is_read_as_it_was(value):
    assert read_document(write_document({"value": value})).plain() == {"value": value}
