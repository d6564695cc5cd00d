"""What each kind may be told, and what its target may look like."""

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from server.egress import Egress
from server.probes.dns import DnsOptions
from server.probes.http_options import HttpOptions
from server.probes.kinds import KINDS, read_check

TARGETS = {
    "http": "https://example.com/",
    "tcp": "example.com:25",
    "tls": "example.com:443",
    "dns": "example.com",
    "icmp": "example.com",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_check_needs_no_options(kind):
    check = read_check(kind, TARGETS[kind], 10)
    assert check.options == KINDS[kind].options()
    KINDS[kind].read_target(check.target)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_described_and_every_example_is_acceptable(kind):
    model = KINDS[kind].options
    assert all(field.description for field in model.model_fields.values())
    for example in model.model_json_schema()["examples"]:
        model.model_validate(example)


@pytest.mark.parametrize(
    ("kind", "options", "where", "words"),
    [
        ("http", {"metod": "GET"}, ("metod",), "Extra inputs are not permitted"),
        ("http", {"method": "TRACE"}, ("method",), "Input should be 'GET', 'HEAD'"),
        ("http", {"method": "HEAD", "body": "x"}, (), "A HEAD request has no body"),
        ("http", {"headers": {"a b": "c"}}, ("headers",), "'a b' is not a header's name."),
        ("http", {"headers": {"": "c"}}, ("headers",), "'' is not a header's name."),
        ("http", {"headers": {"a:\r\nb": "c"}}, ("headers",), r"'a:\r\nb' is not a header's name."),
        ("http", {"headers": {"authorization": "c"}}, ("headers",), "Put credentials into auth"),
        ("http", {"headers": {"Content-Length": "5"}}, ("headers",), "Content-Length is set by the check itself."),
        ("http", {"headers": {"transfer-encoding": "x"}}, ("headers",), "transfer-encoding is set by the check"),
        ("http", {"headers": {"A": "1", "a": "2"}}, ("headers",), "A stands there twice."),
        ("http", {"headers": {"a": "b\r\nc: d"}}, ("headers", "a"), "A header's value holds printable ASCII"),
        ("http", {"headers": {"a": "b\n"}}, ("headers", "a"), "A header's value holds printable ASCII"),
        ("http", {"headers": {str(n): "" for n in range(51)}}, ("headers",), "at most 50 items"),
        ("http", {"body": "x" * 100_001}, ("body",), "at most 100000 characters"),
        ("http", {"expected_status": ["2xx"]}, ("expected_status",), "Write a status as 404, or a range"),
        ("http", {"expected_status": ["299-200"]}, ("expected_status",), "299-200: the lower status comes first"),
        ("http", {"expected_status": []}, ("expected_status",), "at least 1 item"),
        ("http", {"max_redirects": 11}, ("max_redirects",), "less than or equal to 10"),
        ("http", {"auth": {"type": "digest"}}, ("auth",), "does not match any of the expected tags"),
        ("http", {"auth": {"type": "basic", "username": "a"}}, ("auth", "basic", "password"), "Field required"),
        (
            "http",
            {"auth": {"type": "basic", "username": "a:b", "password": ""}},
            ("auth", "basic", "username"),
            "A user name holds no colon",
        ),
        ("http", {"auth": {"type": "bearer", "token": "a b"}}, ("auth", "bearer", "token"), "visible ASCII"),
        ("http", {"auth": {"type": "bearer", "token": "a\n"}}, ("auth", "bearer", "token"), "visible ASCII"),
        (
            "http",
            {"auth": {"type": "header", "name": "Host", "value": "x"}},
            ("auth", "header", "name"),
            "Host does not carry credentials.",
        ),
        ("tcp", {"send": "x" * 4097}, ("send",), "at most 4096 characters"),
        ("tls", {"server_name": "a b"}, ("server_name",), "Write a host name or an IP address"),
        ("tls", {"server_name": "127.1"}, ("server_name",), "a host name and no address"),
        ("dns", {"record_type": "ANY"}, ("record_type",), "Input should be 'A', 'AAAA'"),
        ("dns", {"resolver": "dns.example.com"}, ("resolver",), "Write the resolver's IP address, as 9.9.9.9"),
        ("dns", {"resolver": "9.9.9.9:0"}, ("resolver",), "A port is a number from 1 to 65535."),
        ("icmp", {"packets": 11}, ("packets",), "less than or equal to 10"),
    ],
)
def test_an_option_that_is_wrong_is_named_with_what_is_right(kind, options, where, words):
    with pytest.raises(ValidationError) as refused:
        KINDS[kind].options.model_validate(options)
    (error,) = refused.value.errors()
    assert error["loc"] == where
    assert words in error["msg"]


def test_a_resolver_in_a_private_network_is_refused_early():
    context = {"egress": Egress(())}
    assert DnsOptions.model_validate({"resolver": "9.9.9.9:53"}, context=context).resolver == "9.9.9.9:53"
    with pytest.raises(ValidationError, match="a private network, which this installation does not reach"):
        DnsOptions.model_validate({"resolver": "10.0.0.1"}, context=context)


def test_a_secret_is_not_shown_by_chance():
    for auth in (
        {"type": "basic", "username": "u", "password": "s3cret"},
        {"type": "bearer", "token": "s3cret"},
        {"type": "header", "name": "X-Key", "value": "s3cret"},
    ):
        assert "s3cret" not in repr(HttpOptions.model_validate({"auth": auth}))


@pytest.mark.parametrize(
    ("kind", "target", "read"),
    [
        ("tcp", "db.example.com:5432", ("db.example.com", 5432)),
        ("tcp", "DB.Example.com.:5432", ("db.example.com.", 5432)),
        ("tcp", "b\u00fccher.example:80", ("xn--bcher-kva.example", 80)),
        ("tcp", "[2001:DB8::7]:5432", ("2001:db8::7", 5432)),
        ("tls", "127.1:443", ("127.0.0.1", 443)),
        ("dns", "_sip._tcp.example.com", "_sip._tcp.example.com"),
        ("dns", "192.0.2.7", "192.0.2.7"),
        ("dns", "2001:db8::7", "2001:db8::7"),
        ("icmp", "0x7f000001", "127.0.0.1"),
        ("icmp", "[2001:db8::7]", "2001:db8::7"),
        ("icmp", "my_host", "my_host"),
    ],
)
def test_a_target_is_read(kind, target, read):
    assert KINDS[kind].read_target(target) == read


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("tcp", "example.com", "Write host:port"),
        ("tcp", ":80", "Write host:port"),
        ("tcp", "2001:db8::7:80", "Write host:port"),
        ("tcp", "[192.0.2.7]:80", "Write host:port"),
        ("tcp", "example.com:http", "A port is a number from 1 to 65535."),
        ("tcp", "example.com:65536", "A port is a number from 1 to 65535."),
        ("tcp", "example.com:\u0661", "A port is a number from 1 to 65535."),
        ("tcp", "https://example.com:443", "Write host:port"),
        ("tls", "exa mple.com:443", "Write a host name or an IP address"),
        ("tls", "-a.example:443", "Write a host name or an IP address"),
        ("dns", "", "Write a name to look up"),
        ("dns", "a..example", "Write a name to look up"),
        ("dns", "a" * 64 + ".example", "Write a name to look up"),
        ("dns", ".".join(["a" * 60] * 5), "Write a name to look up"),
        ("dns", "\u0661\ud800.example", "Write a name to look up"),
        ("dns", "2001:db8::g", "Write a name to look up"),
        ("icmp", "example.com/path", "Write a host name or an IP address"),
        ("icmp", "fe80::1%eth0", "Write a host name or an IP address"),
        ("http", "ftp://example.com/", "only http and https"),
    ],
)
def test_a_target_that_cannot_be_checked_is_refused_with_what_is_right(kind, target, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        KINDS[kind].read_target(target)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gopher", "example.com", 10), "There is no check of the kind gopher; there are http, tcp"),
        (("http", "https://example.com/", 10, {"auth": {}}), "options.auth: Unable to extract tag"),
        (("tcp", "example.com:80", 10, {}, ["status == 200"]), "Column 1: expected what to look at"),
        (("http", "https://example.com/", 10, {}, ["status == 200"] * 21), "A check has at most 20 assertions."),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        read_check(*arguments)


def test_checks_are_read_without_flask():
    program = "import sys, server.probes.prober; sys.exit('flask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
