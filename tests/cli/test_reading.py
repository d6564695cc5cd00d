"""A file read: every fault at once, with its line and what is right."""

from pathlib import Path

import pytest

from server.cli.documents import UnusableFile
from server.cli.reading import read_desired
from server.cli.resources import Section

FAULTS = [
    ("monitor: {}", 1, "monitor is no section; did you mean monitors?"),
    ("tags: {}", 1, "tags is no section. There are: channels, monitors, maintenance_windows."),
    ("x-shared: {}", 1, "The file has no section, so there is nothing to do"),
    ("- a", 1, "The file must hold sections"),
    ("monitors:", 1, "Leave it out and they stay as they are; write {} for none."),
    ("monitors: [a]", 1, "monitors must map keys to entries."),
    ("monitors:\n  a: https://example.com/", 2, "monitors.a must be a mapping"),
    ("monitors:\n  a b: {target: 'https://example.com/'}", 2, "The key 'a b' must be of letters, digits"),
    ("monitors:\n  a:\n    kind: http", 2, "monitors.a: target is required."),
    ("monitors:\n  a:\n    target: example.com", 3, "monitors.a: the target cannot be used. only http and https"),
    ("monitors:\n  a: {kind: tcp, target: example.com}", 2, "Write host:port, as db.example.com:5432"),
    ("monitors:\n  a: {kind: smtp, target: example.com}", 2, "monitors.a.kind: Input should be 'http', 'tcp'"),
    (
        "monitors:\n  a:\n    target: https://example.com/\n    intervall_seconds: 3",
        4,
        "did you mean interval_seconds?",
    ),
    ("monitors:\n  a:\n    target: https://example.com/\n    interval_seconds: '30'", 4, "must be a whole number."),
    ("monitors:\n  a:\n    target: https://example.com/\n    paused: yes", 4, "must be true or false."),
    ("monitors:\n  a:\n    target: https://example.com/\n    assertions: status == 200", 4, "must be a list"),
    (
        "monitors:\n  a:\n    target: https://example.com/\n    assertions:\n      - status == 200\n      - body == ",
        6,
        "monitors.a: the assertion cannot be read. Column 8: expected a value",
    ),
    (
        "monitors:\n  a:\n    target: https://example.com/\n    options:\n      method: GET\n      max_redirect: 3",
        6,
        "monitors.a.options.max_redirect is not known; did you mean max_redirects?",
    ),
    (
        "monitors:\n  a:\n    target: https://example.com/\n    options:\n      headers:\n        Authorization: x",
        5,
        "Put credentials into auth, where they are kept secret.",
    ),
    (
        "monitors:\n  a:\n    kind: heartbeat\n    interval_seconds: 60",
        4,
        "interval_seconds does not belong to the kind heartbeat",
    ),
    ("monitors:\n  a:\n    kind: heartbeat\n    options:\n      cron: 30 2 * *", 5, "A cron line has five fields"),
    ("monitors:\n  a:\n    target: https://example.com/\n    slug: a", 4, "slug does not belong to the kind http"),
    (
        "monitors:\n  a:\n    target: https://example.com/\n    options:\n      auth: {type: bearer, token: s3}",
        5,
        "a secret does not belong into a file. Put it into the environment, and write token: ${A_TOKEN}",
    ),
    ("channels:\n  a:\n    url: ${NOT_SET}", 3, "channels.a: the environment variable NOT_SET is not set."),
    ("channels:\n  a:\n    url: ${NOT SET}", 3, "A variable is written ${NAME}"),
    ("channels:\n  a:\n    url: ${", 3, "A variable is written ${NAME}"),
    (
        "channels:\n  a: {name: X, url: 'https://example.com/'}\n  b: {name: X, url: 'https://example.com/'}",
        3,
        "as a in line 2",
    ),
    (
        "maintenance_windows:\n  w:\n    all_monitors: true\n    starts_at: 2030-01-12\n    ends_at: 2030-01-12 03:00Z",
        4,
        "Say which offset is meant",
    ),
    (
        "maintenance_windows:\n  w: {starts_at: 2030-01-12T01:00:00Z, ends_at: 2030-01-12T03:00:00Z}",
        2,
        "maintenance_windows.w needs either monitors, or all_monitors: true.",
    ),
]


@pytest.mark.parametrize(("text", "line", "words"), FAULTS, ids=[each[2][:40] for each in FAULTS])
def test_a_fault_is_named_with_its_line_and_what_is_right(text, line, words):
    with pytest.raises(UnusableFile) as refused:
        read_desired(text, {})
    [problem] = refused.value.problems
    assert words in problem.detail
    assert problem.line == line


def test_every_fault_is_told_at_once_in_the_order_of_lines():
    text = "monitors:\n  a: {target: 7}\n  b: {}\nchannels:\n  c: {}\n"
    with pytest.raises(UnusableFile) as refused:
        read_desired(text, {})
    assert [problem.line for problem in refused.value.problems] == [2, 3, 5]


def test_variables_are_put_in_and_noted():
    text = "monitors:\n  a: {target: 'https://${HOST}/$${HOST}', options: {headers: {X-A: '${A}${A}'}}}\n"
    [wanted] = read_desired(text, {"HOST": "example.com", "A": "1"})[Section.MONITORS]
    assert wanted.fields["target"] == "https://example.com/${HOST}"
    assert wanted.fields["options"]["headers"] == {"X-A": "11"}
    assert wanted.from_environment == {("target",), ("options", "headers", "X-A")}


def test_what_is_left_out_has_the_defaults_of_its_kind():
    text = "monitors:\n  a: {target: 'https://example.com/', interval_seconds: 5}\n  b: {kind: heartbeat}\n"
    check, heartbeat = read_desired(text, {})[Section.MONITORS]
    assert (check.fields["timeout_seconds"], check.fields["retry_interval_seconds"]) == (5, 5)
    assert check.fields["options"]["expected_status"] == ["200-299"]
    assert heartbeat.fields["options"]["period_seconds"] == 86_400
    assert "slug" not in heartbeat.fields, "the API makes one of the name, and it stays"


def test_the_example_of_the_documentation_can_be_read():
    documentation = (Path(__file__).parents[2] / "docs" / "as-code.md").read_text()
    example = documentation.split("## The file\n\n```yaml\n")[1].split("```")[0]
    desired = read_desired(example, {"ONCALL_URL": "https://hooks.example.com/a", "API_TOKEN": "s3"})
    assert {section: len(wanted) for section, wanted in desired.items()} == dict(zip(Section, (1, 3, 1), strict=True))
