import asyncio

import dns.message
import dns.rcode
import dns.resolver
import pytest

from server.egress import Egress
from server.features.checks.rules import ErrorKind, Observation
from server.probes.kinds import read_check
from server.probes.prober import Prober
from tests.worker.name_servers import records, refuse, serve_names, stay_silent, truncate
from tests.worker.probing import LONG_SECONDS, SHORT_SECONDS, STARTED_AT, failed, resolve
from tests.worker.targets import find_free_port


@pytest.fixture
def ask(probe):
    """Run one dns check, of a name server that answers so; return what was seen and what it was asked."""

    def ask_server(answer, name="example.com", *, over_tcp=None, **more):
        with serve_names(answer, over_tcp) as server:
            seen = probe("dns", name, resolver=server.address, **more)
        return seen, server.asked

    return ask_server


# --- up


def test_a_name_that_has_the_records_is_up(ask):
    seen, asked = ask(records("example.com. A 192.0.2.2"))
    assert (seen.ok, seen.remote_ip, seen.started_at) == (True, "127.0.0.1", STARTED_AT)
    assert asked == [("example.com. IN A", "udp")]
    assert 0 < seen.timings.dns_ms <= seen.timings.total_ms


@pytest.mark.parametrize(
    ("record_type", "answer", "answers"),
    [
        ("A", ["example.com. A 192.0.2.2", "example.com. A 192.0.2.1"], "192.0.2.1, 192.0.2.2"),
        ("AAAA", ["example.com. AAAA 2001:DB8::0:1"], "2001:db8::1"),
        ("CAA", ['example.com. CAA 0 issue "ca.example"'], '0 issue "ca.example"'),
        ("CNAME", ["example.com. CNAME Other.Example."], "other.example"),
        ("MX", ["example.com. MX 20 b.example.", "example.com. MX 10 a.example."], "10 a.example, 20 b.example"),
        ("NS", ["example.com. NS ns1.example."], "ns1.example"),
        ("SOA", ["example.com. SOA ns.example. root.example. 1 2 3 4 5"], "ns.example root.example 1 2 3 4 5"),
        ("SRV", ["example.com. SRV 1 2 443 a.example."], "1 2 443 a.example"),
        ("TXT", ['example.com. TXT "v=spf1 " "-all"'], "v=spf1 -all"),
    ],
)
def test_records_are_written_as_people_write_them(ask, record_type, answer, answers):
    seen, _ = ask(records(*answer), record_type=record_type, assertions=["answers exists"])
    assert seen.ok, seen
    assert seen.findings[0].observed == answers


def test_an_alias_is_followed_to_its_records(ask):
    answer = records("example.com. CNAME cdn.example.", "cdn.example. A 192.0.2.9")
    assert ask(answer, assertions=['answers == "192.0.2.9"'])[0].ok


@pytest.mark.parametrize(
    ("address", "question"),
    [
        ("192.0.2.7", "7.2.0.192.in-addr.arpa. IN PTR"),
        ("2001:db8::7", "7." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa. IN PTR"),
    ],
)
def test_an_address_is_asked_for_its_name(ask, address, question):
    name = question.split()[0]
    answer = records(f"{name} PTR host.example.")
    seen, asked = ask(answer, address, record_type="PTR", assertions=['answers == "host.example"'])
    assert seen.ok, seen
    assert asked == [(question, "udp")]


def test_an_answer_that_does_not_fit_is_fetched_over_tcp(ask):
    many = records(*(f"example.com. A 192.0.2.{number}" for number in range(200)))
    seen, asked = ask(truncate, over_tcp=many, assertions=['answers contains "192.0.2.199"'])
    assert seen.ok
    assert [protocol for _, protocol in asked] == ["udp", "tcp"]


def test_the_workers_own_resolver_is_asked_wherever_it_is(probe, monkeypatch):
    with serve_names(records("example.com. A 192.0.2.1")) as server:

        def read_configuration(self, *_):
            self.nameservers, self.port = ["127.0.0.1"], server.port

        monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read_configuration)
        seen = probe("dns", "example.com", egress=Egress(()), assertions=['answers == "192.0.2.1"'])
    assert (seen.ok, seen.remote_ip) == (True, "127.0.0.1")


# --- lying


def test_records_that_are_not_the_expected_ones_are_told(ask):
    seen, _ = ask(records("example.com. A 203.0.113.66"), assertions=['answers == ["192.0.2.1"]'])
    assert failed(seen) == (ErrorKind.ASSERTION, 'answers == ["192.0.2.1"]: was 203.0.113.66')


def test_a_forged_answer_is_not_an_answer(ask):
    def forge(query: dns.message.Message) -> dns.message.Message:
        forged = records("example.com. A 203.0.113.66")(query)
        forged.id = (query.id + 1) % 65536
        return forged

    seen, _ = ask(forge, timeout_seconds=SHORT_SECONDS)
    assert seen.error_kind is ErrorKind.TIMEOUT


def test_what_is_no_dns_is_not_waited_for_longer_than_anything(ask):
    seen, _ = ask(lambda _: b"\x00" * 5, timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while waiting for the resolver")


def test_a_circle_of_aliases_ends(ask):
    seen, _ = ask(records("example.com. CNAME example.com."))
    assert seen.error_kind is ErrorKind.DNS


# --- down


def test_a_name_that_does_not_exist_is_told(ask):
    seen, _ = ask(refuse(dns.rcode.NXDOMAIN))
    assert failed(seen) == (ErrorKind.DNS, "NXDOMAIN: there is no such name")
    assert seen.remote_ip == "127.0.0.1"


def test_a_name_without_such_records_is_told(ask):
    assert failed(ask(records(), record_type="MX")[0]) == (ErrorKind.DNS, "the name has no MX records")


@pytest.mark.parametrize("answer", [refuse(dns.rcode.NXDOMAIN), records()])
def test_that_there_is_nothing_may_be_what_is_wanted(ask, answer):
    assert ask(answer, assertions=["answers not exists"])[0].ok
    seen, _ = ask(records("example.com. A 192.0.2.1"), assertions=["answers not exists"])
    assert failed(seen) == (ErrorKind.ASSERTION, "answers not exists: was 192.0.2.1")


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
def test_a_resolver_that_refuses_is_told_by_its_code(ask, code):
    seen, _ = ask(refuse(dns.rcode.from_text(code)), assertions=["answers not exists"])
    assert failed(seen) == (ErrorKind.DNS, f"the resolver answered {code}"), "a refusal says nothing of the name"


def test_a_resolver_that_is_not_there_is_told(probe):
    resolver = f"127.0.0.1:{find_free_port()}"
    seen = probe("dns", "example.com", resolver=resolver, timeout_seconds=SHORT_SECONDS)
    assert seen.error_kind is ErrorKind.TIMEOUT, "over UDP nobody says that nobody is there"


def test_a_resolver_that_hangs_up_is_told(ask):
    seen, _ = ask(truncate, over_tcp=lambda _: b"")
    assert failed(seen) == (ErrorKind.PROTOCOL, "the resolver closed the connection without an answer")


def test_a_worker_without_a_resolver_says_so(probe, monkeypatch):
    def find_none(self, *_):
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", find_none)
    seen = probe("dns", "example.com")
    assert failed(seen) == (ErrorKind.UNSUPPORTED, "this worker has no resolver: name one in options.resolver")
    assert seen.outcome == "unknown"


# --- slow


def test_a_silent_resolver_times_out(ask):
    seen, _ = ask(stay_silent, timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while waiting for the resolver")
    assert seen.timings.dns_ms is None


def test_a_packet_may_be_lost_and_is_sent_again(ask, monkeypatch):
    monkeypatch.setattr("server.probes.dns._TRY_SECONDS", SHORT_SECONDS)
    answers = iter([stay_silent])

    def answer_the_second(query: dns.message.Message) -> dns.message.Message | None:
        return next(answers, records("example.com. A 192.0.2.1"))(query)

    seen, asked = ask(answer_the_second)
    assert seen.ok
    assert len(asked) == 2


def test_a_resolver_that_is_silent_over_tcp_times_out(ask):
    seen, _ = ask(truncate, over_tcp=stay_silent, timeout_seconds=SHORT_SECONDS)
    assert seen.error_kind is ErrorKind.TIMEOUT


# --- the guard


def test_a_resolver_that_is_not_public_is_refused_before_it_is_asked(probe):
    with serve_names(records("example.com. A 192.0.2.1")) as server:
        seen = probe("dns", "example.com", resolver=server.address, egress=Egress(()))
    assert failed(seen) == (ErrorKind.BLOCKED, "127.0.0.1 is not a public address, or resolves to none that is")
    assert server.asked == []


# --- many at once


def test_silent_resolvers_hold_up_nobody_else(loopback):
    async def check_beside(silent, up) -> tuple[list[Observation], Observation]:
        async with Prober(loopback, resolve=resolve) as prober:
            stuck = [asyncio.create_task(prober.check(silent, STARTED_AT)) for _ in range(100)]
            beside = await prober.check(up, STARTED_AT)
            return await asyncio.gather(*stuck), beside

    with serve_names(stay_silent) as silent, serve_names(records("example.com. A 192.0.2.1")) as up:
        stuck = read_check("dns", "example.com", SHORT_SECONDS, {"resolver": silent.address})
        fine = read_check("dns", "example.com", LONG_SECONDS, {"resolver": up.address})
        seen, beside = asyncio.run(check_beside(stuck, fine))
    assert beside.ok
    assert {one.error_kind for one in seen} == {ErrorKind.TIMEOUT}
