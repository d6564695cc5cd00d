"""A backup of Uptime Kuma 1.23 becomes a file that is read without a fault, and nothing stays behind in silence."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.cli.documents import write_document
from server.cli.kuma import NotABackup, convert, read_backup
from server.cli.reading import read_desired
from server.cli.resources import Section
from server.probes.assertions import parse

BACKUP = (Path(__file__).parent / "uptime-kuma-1.23.json").read_text()


def monitor(**more):
    """One monitor of a backup, with what Uptime Kuma shows of each."""
    return json.loads(BACKUP)["monitorList"][1] | {"expiryNotification": False, "tags": [], "parent": None} | more


def entry_of(**more):
    converted = convert({"monitorList": [monitor(**more)]})
    [entry] = converted.document["monitors"].values() or [None]
    return entry, [loss.reason for loss in converted.losses]


def test_a_backup_becomes_a_file_and_every_loss_is_named():
    converted = convert(read_backup(BACKUP))
    text = write_document(converted.document)
    assert "hunter2" not in text
    wanted = read_desired(text, converted.secrets)[Section.MONITORS]
    assert [each.name for each in wanted] == [
        *("Shop", "Shop search", "No maintenance page", "Queue", "Orders", "Login", "Postgres", "Router", "MX"),
        *("Nightly backup", "Shop (2)"),
    ]
    assert converted.secrets == {"QUEUE_PASSWORD": "hunter2", "ORDERS_TOKEN": "abc.def"}
    assert [loss.monitor for loss in converted.losses if loss.is_whole] == [
        *("Websites", "Registry", "Warehouse", "Broker", "Old site is gone", "notification Ops Slack")
    ]
    assert "hunter2" not in str(converted.losses)


MAPPED = [
    ({"type": "keyword", "keyword": 'say "hi"'}, {"assertions": ['body contains "say \\"hi\\""']}),
    ({"type": "keyword", "keyword": "x", "invertKeyword": True}, {"assertions": ['body not contains "x"']}),
    ({"type": "json-query", "jsonPath": "a.b[0]", "expectedValue": "ok"}, {"assertions": ['json $.a.b[0] == "ok"']}),
    (
        {"type": "json-query", "jsonPath": "$.up", "expectedValue": "true"},
        {"assertions": ['json $.up in ["true", true]']},
    ),
    ({"type": "http", "expiryNotification": True}, {"assertions": ["tls_days_left >= 7"]}),
    ({"maxretries": 4}, {"fail_threshold": 5}),
    ({"maxretries": 0}, {"fail_threshold": 1}),
    ({"interval": 20, "retryInterval": 90, "timeout": 48}, {"retry_interval_seconds": 20, "timeout_seconds": 20}),
    ({"active": False}, {"paused": True}),
    (
        {"maxredirects": 5, "accepted_statuscodes": ["200-299", "404"]},
        {"options": {"expected_status": ["200-299", "404"]}},
    ),
    ({"maxredirects": 5, "ignoreTls": True}, {"options": {"verify_tls": False}}),
    ({"type": "port", "hostname": "2001:db8::7", "port": 22}, {"kind": "tcp", "target": "[2001:db8::7]:22"}),
    ({"type": "ping", "hostname": "example.com"}, {"kind": "icmp", "target": "example.com"}),
    (
        {"type": "dns", "hostname": "example.com", "port": 5353, "dns_resolve_type": "NS"},
        {"kind": "dns", "options": {"record_type": "NS", "resolver": "1.1.1.1:5353"}},
    ),
    (
        {"type": "push", "interval": 3600, "maxretries": 2, "retryInterval": 60},
        {"kind": "heartbeat", "options": {"period_seconds": 3600, "grace_seconds": 120}},
    ),
]


@pytest.mark.parametrize(("given_fields", "expected"), MAPPED, ids=[str(each[1]) for each in MAPPED])
def test_what_a_monitor_does_it_does_here(given_fields, expected):
    entry, _ = entry_of(**given_fields)
    assert {name: entry[name] for name in expected} == expected


LOST = [
    ({"type": "gamedig"}, "type gamedig: there is no check of game servers"),
    ({"type": "postgres"}, "type postgres: databases are not logged in to"),
    ({"type": "never-heard-of"}, "type never-heard-of: it is not known here"),
    ({"upsideDown": True}, "upside down: there is no check that is up when it fails"),
    ({"url": "https://user:pw@example.com/"}, "its URL is not one of http or https, or carries credentials"),
    ({"type": "port", "hostname": "", "port": 22}, "it names no host and port"),
    ({"type": "ping", "hostname": "not a host"}, "the target cannot be used"),
    ({"headers": '{"Content-Length": "7"}'}, "Content-Length is set by the check itself"),
]


@pytest.mark.parametrize(("given_fields", "reason"), LOST, ids=[each[1][:30] for each in LOST])
def test_what_cannot_come_along_is_left_out_with_its_reason(given_fields, reason):
    entry, reasons = entry_of(**given_fields)
    assert entry is None
    assert reason in reasons[-1]


DROPPED = [
    ({"proxyId": 1}, "its proxy"),
    ({"resendInterval": 3}, "repeated notifications"),
    ({"authMethod": "ntlm", "basic_auth_user": "u"}, "its ntlm authentication"),
    ({"type": "json-query", "jsonPath": "$sum(a)", "expectedValue": "1"}, "its query '$sum(a)'"),
    ({"headers": "no json"}, "its headers: they are not a JSON object"),
    ({"interval": 2}, "an interval of 2 s became 5 s"),
    ({"maxretries": 40}, "40 retries became 19"),
    ({"accepted_statuscodes": ["700"]}, "its accepted status codes, 700"),
]


@pytest.mark.parametrize(("given_fields", "reason"), DROPPED, ids=[each[1] for each in DROPPED])
def test_what_of_a_monitor_does_not_come_along_is_named(given_fields, reason):
    entry, reasons = entry_of(**given_fields)
    assert entry is not None
    assert any(reason in each for each in reasons)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"monitorList": 7}', '{"monitorList": [7]}', "[" * 100_000])
def test_what_is_no_backup_is_refused(text):
    with pytest.raises(NotABackup):
        read_backup(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20))
@settings(deadline=None)
def test_every_keyword_becomes_an_assertion_that_is_read_as_it_was(keyword):
    entry, _ = entry_of(type="keyword", keyword=keyword)
    [wanted] = read_desired(write_document({"monitors": {"a": entry}}), {})[Section.MONITORS]
    assert parse(wanted.fields["assertions"][0], "http").value == keyword
