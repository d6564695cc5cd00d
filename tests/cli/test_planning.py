"""What has to be done: tables, and a model of an organisation that plans are carried out in."""

from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cli.applying import carry_out
from server.cli.client import Api, Refused
from server.cli.documents import write_document
from server.cli.exporting import export
from server.cli.fetching import fetch
from server.cli.planning import Action, ImpossiblePlan, make_plan
from server.cli.printing import describe_plan
from server.cli.reading import read_desired
from server.cli.resources import Section
from tests.cli.organisation import Organisation

ENV = {"SECRET": "s3cret", "URL": "https://hooks.example.com/abc"}
SITE = {"target": "https://example.com/"}


def plan_for(organisation, document, env=None, **more):
    text = document if isinstance(document, str) else write_document(document)
    return make_plan(read_desired(text, ENV if env is None else env), fetch(cast(Api, organisation), Section), **more)


def apply(organisation, document, env=None, **more):
    return carry_out(
        plan_for(organisation, document, env, **more), organisation, uuid4, lambda *_: None, lambda *_: None
    )


def actions(plan):
    return [(step.action.value, step.name) for step in plan.steps]


@pytest.fixture
def acme():
    organisation = Organisation()
    document = {
        "channels": {"on-call": {"url": "${URL}"}},
        "monitors": {
            "gateway": {"kind": "icmp", "target": "gateway.example.com"},
            "api": {**SITE, "name": "API", "depends_on": ["gateway"], "options": {"headers": {"X-A": "1", "X-B": "2"}}},
            "login": {**SITE, "options": {"auth": {"type": "bearer", "token": "${SECRET}"}}},
            "backup": {"kind": "heartbeat", "options": {"cron": "30 2 * * *"}},
        },
        "maintenance_windows": {
            "db": {
                "monitors": ["api"],
                "starts_at": "2030-01-12T01:00:00+01:00",
                "ends_at": "2030-01-12T03:00:00+01:00",
            }
        },
    }
    assert not apply(organisation, document).failed
    organisation.log.clear()
    return organisation, document


def test_a_second_plan_is_empty(acme):
    organisation, document = acme
    plan = plan_for(organisation, document)
    assert (plan.steps, plan.unchanged) == ((), 6)
    assert describe_plan(plan) == "Nothing to do: 6 stay as they are."


CHANGES: list[tuple[str, tuple[str, str, str, Any], dict[str, Any]]] = [
    ("an interval", ("monitors", "api", "interval_seconds", 30), {"interval_seconds": 30}),
    (
        "a header that goes",
        ("monitors", "api", "options", {"headers": {"X-A": "1"}}),
        {"options": {"headers": {"X-B": None}}},
    ),
    ("no parents any more", ("monitors", "api", "depends_on", []), {"depends_on": []}),
    ("a pause", ("monitors", "backup", "paused", True), {"paused": True}),
    (
        "a period for cron",
        ("monitors", "backup", "options", {"period_seconds": 60}),
        {"options": {"period_seconds": 60, "cron": None}},
    ),
    (
        "other credentials, which are sent whole",
        ("monitors", "login", "options", {"auth": {"type": "basic", "username": "u", "password": "${SECRET}"}}),
        {"options": {"auth": {"type": "basic", "username": "u", "password": "s3cret"}}},
    ),
    ("no credentials", ("monitors", "login", "options", {}), {"options": {"auth": None}}),
    (
        "a window's end",
        ("maintenance_windows", "db", "ends_at", "2030-01-12T04:00:00Z"),
        {"ends_at": "2030-01-12T04:00:00Z"},
    ),
]


@pytest.mark.parametrize(("change", "body"), [each[1:] for each in CHANGES], ids=[each[0] for each in CHANGES])
def test_a_change_sends_what_differs_and_nothing_else(acme, change, body):
    organisation, document = acme
    section, key, name, value = change
    document[section][key][name] = value
    [step] = plan_for(organisation, document).steps
    assert (step.action, step.body) == (Action.CHANGE, body)
    assert not apply(organisation, document).failed
    assert plan_for(organisation, document).steps == ()


def test_what_the_file_has_not_is_deleted_in_the_sections_that_it_has(acme):
    organisation, document = acme
    del document["monitors"]["api"], document["monitors"]["gateway"], document["maintenance_windows"]
    plan = plan_for(organisation, document)
    assert actions(plan) == [("delete", "API"), ("delete", "gateway")], "the child goes before its parent"
    assert not apply(organisation, document).failed
    assert len(organisation.things[Section.WINDOWS]) == 1
    assert plan_for(organisation, document).steps == ()


def test_what_is_kept_is_said(acme):
    organisation, document = acme
    del document["monitors"]["backup"]
    plan = plan_for(organisation, document, keeps=True)
    assert plan.steps == ()
    assert 'monitor "backup" is not in the file, and is kept' in describe_plan(plan)


def test_a_plan_that_would_leave_nothing_of_a_section_says_which(acme):
    organisation, document = acme
    document["monitors"] = {}
    assert plan_for(organisation, document | {"maintenance_windows": {}}).emptied == (
        Section.MONITORS,
        Section.WINDOWS,
    )
    document["monitors"] = {"new": SITE}
    assert Section.MONITORS in plan_for(organisation, {"monitors": document["monitors"]}).emptied


def test_a_renamed_monitor_keeps_its_history_and_says_so_only_once(acme):
    organisation, document = acme
    document["monitors"]["api"] |= {"name": "The API", "renamed_from": "API"}
    [step] = plan_for(organisation, document).steps
    assert (step.action, step.body) == (Action.CHANGE, {"name": "The API"})
    assert not apply(organisation, document).failed
    assert plan_for(organisation, document).steps == ()


def test_another_kind_replaces_a_monitor_and_its_children_follow_the_new_one(acme):
    organisation, document = acme
    document["monitors"]["gateway"] = {"kind": "tcp", "target": "gateway.example.com:22"}
    plan = plan_for(organisation, document)
    assert actions(plan) == [("replace", "gateway"), ("change", "API")]
    outcome = apply(organisation, document)
    assert not outcome.failed
    assert organisation.log == ["create gateway", "change API", "delete gateway"]
    assert plan_for(organisation, document).steps == ()


def test_a_channel_is_replaced_since_the_api_changes_none(acme):
    organisation, document = acme
    plan = plan_for(organisation, document, env=ENV | {"URL": "https://hooks.example.com/new"})
    assert actions(plan) == [("replace", "on-call")]
    assert "hooks.example.com" not in describe_plan(plan), "what the environment gave is never shown, old or new"


def test_a_secret_is_needed_only_where_it_is_sent(acme):
    organisation, document = acme
    env = {"URL": ENV["URL"]}
    assert plan_for(organisation, document, env).steps == ()
    with pytest.raises(ImpossiblePlan) as refused:
        plan_for(organisation, document, env, sends_secrets=True)
    assert "the environment variable SECRET is not set" in refused.value.problems[0].detail
    [step] = plan_for(organisation, document, ENV | {"SECRET": "n3w"}, sends_secrets=True).steps
    assert step.body == {"options": {"auth": {"type": "bearer", "token": "n3w"}}}
    assert "n3w" not in describe_plan(plan_for(organisation, document, ENV | {"SECRET": "n3w"}, sends_secrets=True))


IMPOSSIBLE = [
    ({"a": SITE | {"depends_on": ["b"]}, "b": SITE | {"depends_on": ["a"]}}, "in a circle: a ► b ► a."),
    ({"a": SITE | {"depends_on": ["a"]}}, "in a circle: a ► a."),
    (
        {"a": SITE | {"depends_on": ["nobody"]}},
        "monitors.a: 'nobody' is no monitor of the file or of the organisation.",
    ),
    ({"a": SITE | {"depends_on": ["login"]}}, "monitors.a: 'login' is not in the file, so that it would be deleted."),
    ({"a": SITE | {"name": "API", "renamed_from": "login"}}, "there are both 'login' and 'API'"),
    (
        {"a": SITE | {"renamed_from": "API"}, "b": SITE | {"renamed_from": "API"}},
        "'API' is claimed by more than one entry",
    ),
]


@pytest.mark.parametrize(("monitors", "words"), IMPOSSIBLE)
def test_what_cannot_be_is_refused_with_its_line(acme, monitors, words):
    with pytest.raises(ImpossiblePlan) as refused:
        plan_for(acme[0], {"monitors": monitors})
    assert words in refused.value.problems[0].detail
    assert refused.value.problems[0].line > 0


def test_a_file_may_name_monitors_that_it_does_not_speak_of(acme):
    organisation, _ = acme
    [gateway] = [row for row in organisation.things[Section.MONITORS].values() if row["name"] == "gateway"]
    [step] = plan_for(organisation, {"monitors": {"a": SITE | {"depends_on": ["gateway"]}}}, keeps=True).steps
    assert step.body["depends_on"] == [gateway["id"]]
    times = {"starts_at": "2030-01-12T01:00:00Z", "ends_at": "2030-01-12T03:00:00Z"}
    [step, _] = plan_for(organisation, {"maintenance_windows": {"w": {"monitors": ["gateway"], **times}}}).steps
    assert step.body["monitor_ids"] == [gateway["id"]]


def test_twins_in_the_organisation_are_refused(acme):
    organisation, document = acme
    organisation.create("/v1/monitors", {"name": "API", "kind": "http", "options": {}, **SITE}, "k")
    with pytest.raises(ImpossiblePlan, match="has 2 monitors named 'API'"):
        plan_for(organisation, document)


def test_what_fails_holds_up_only_what_needs_it(acme):
    organisation, document = acme
    organisation.refuses.add("new parent")
    document["monitors"] |= {
        "new": SITE | {"name": "new parent"},
        "child": SITE | {"depends_on": ["new"]},
        "other": SITE,
    }
    outcome = apply(organisation, document)
    assert [failure.step.name for failure in outcome.failed] == ["new parent", "child"]
    assert "it needs the monitor new, which could not be made" in outcome.failed[1].reasons[0][1]
    assert organisation.log == ["create other"]
    organisation.refuses.clear()
    assert not apply(organisation, document).failed
    assert plan_for(organisation, document).steps == ()


def test_a_full_quota_hinders_no_other_step_and_a_revoked_key_every_one(acme):
    organisation, document = acme
    del document["monitors"]["backup"]
    document["monitors"] |= {"first": SITE, "second": SITE}
    organisation.refuses.add("first")
    organisation.refusal = Refused(401, "unauthenticated", "The key was revoked.")
    outcome = apply(organisation, document)
    assert [failure.step.name for failure in outcome.failed] == ["first", "second", "backup"]
    assert organisation.log == []
    organisation.refusal = Refused(403, "quota_exceeded", "20 monitors are all that the plan allows.")
    assert [failure.step.name for failure in apply(organisation, document).failed] == ["first"]
    assert organisation.log == ["create second", "delete backup"]


def test_what_somebody_changed_meanwhile_is_not_overwritten(acme):
    organisation, document = acme
    document["monitors"]["api"]["interval_seconds"] = 30
    plan = plan_for(organisation, document)
    for row in organisation.things[Section.MONITORS].values():
        row["version"] += 1
    outcome = carry_out(plan, organisation, uuid4, lambda *_: None, lambda *_: None)
    assert "Somebody has changed it meanwhile" in outcome.failed[0].reasons[0][1]


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
OWN = {
    "http": st.fixed_dictionaries(
        {},
        optional={
            "method": st.sampled_from(["GET", "POST"]),
            "headers": st.dictionaries(st.sampled_from(["X-A", "X-B"]), st.text("az ${}:#", max_size=5), max_size=2),
            "body": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12).map(
                lambda text: text.replace("${", "$${")
            ),
            "auth": st.sampled_from(
                [
                    {"type": "bearer", "token": "${SECRET}"},
                    {"type": "basic", "username": "u", "password": "${SECRET}"},
                    {"type": "header", "name": "X-Key", "value": "${SECRET}"},
                ]
            ),
        },
    ),
    "tcp": st.fixed_dictionaries({}, optional={"send": st.sampled_from(["PING\r\n", "yes", "012", "1e3"])}),
    "dns": st.fixed_dictionaries({}, optional={"record_type": st.sampled_from(["A", "MX"])}),
    "icmp": st.fixed_dictionaries({}, optional={"packets": st.integers(1, 10)}),
    "heartbeat": st.one_of(
        st.fixed_dictionaries({"cron": st.sampled_from(["30 2 * * *", "0 0 1 1 *"])}),
        st.fixed_dictionaries({}, optional={"period_seconds": st.integers(60, 90), "grace_seconds": st.just(60)}),
    ),
}
TARGETS = {"http": "https://example.com/", "tcp": "example.com:22", "dns": "example.com", "icmp": "example.com"}


@st.composite
def documents(draw):
    """Files of a few monitors, of every kind, that depend on earlier ones; and a window over some of them."""
    keys = draw(st.lists(NAMES, unique=True, max_size=5))
    monitors = {}
    for place, key in enumerate(keys):
        kind = draw(st.sampled_from(sorted(OWN)))
        monitors[key] = {"kind": kind, "options": draw(OWN[kind])}
        headers = monitors[key]["options"].get("headers", {})
        headers |= {name: value.replace("${", "$${").strip() for name, value in headers.items()}
        if kind != "heartbeat":
            monitors[key] |= {"target": TARGETS[kind]} | draw(
                st.fixed_dictionaries(
                    {}, optional={"interval_seconds": st.integers(5, 90), "fail_threshold": st.just(3)}
                )
            )
        if place and (parents := draw(st.lists(st.sampled_from(keys[:place]), unique=True, max_size=2))):
            monitors[key]["depends_on"] = parents
    document = {"monitors": monitors}
    if keys and draw(st.booleans()):
        covered = draw(st.lists(st.sampled_from(keys), unique=True, min_size=1))
        times = {"starts_at": "2030-01-12T01:00:00+01:00", "ends_at": "2030-01-12T03:00:00Z"}
        document["maintenance_windows"] = {"w": {"monitors": covered, **times}}
    return document


@given(documents(), documents())
@settings(deadline=None, max_examples=100)
def test_an_applied_file_is_what_there_is_and_its_export_changes_nothing(first, second):
    organisation = Organisation()
    for document in (first, second):
        # A window may name monitors that the second file deletes: then the file speaks of windows as well.
        document.setdefault("maintenance_windows", {})
        outcome = apply(organisation, document)
        assert outcome.failed == []
        assert plan_for(organisation, document).steps == ()
        assert len(organisation.things[Section.MONITORS]) == len(document["monitors"])
        exported = export(fetch(cast(Api, organisation), Section))
        assert plan_for(organisation, exported, env={}).steps == ()
        assert "s3cret" not in exported
