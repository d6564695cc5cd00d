import pytest

from server.egress import Egress
from server.features.checks.rules import ErrorKind
from server.probes.icmp import IcmpOptions
from tests.worker.pinging import ping
from tests.worker.probing import LONG_SECONDS, SHORT_SECONDS, failed

UP = {"target": "127.0.0.1", "timeout_seconds": LONG_SECONDS}
# Nobody has this address, but the way leads there.
LOST = {"target": "192.0.2.1", "timeout_seconds": SHORT_SECONDS}


def test_a_host_that_answers_is_up_and_its_loss_and_time_can_be_asserted():
    texts = ["loss_percent == 0", "response_ms < 20000"]
    by_address, by_name = ping({**UP, "assertions": texts}, {**UP, "target": "localhost", "options": {"packets": 1}})
    assert (by_address["error_kind"], by_address["remote_ip"]) == (None, "127.0.0.1")
    assert by_address["timings"]["total_ms"] > 0
    assert by_address["findings"][0] == {"assertion": texts[0], "observed": "0.0", "holds": True}
    assert by_name["error_kind"] is None
    assert by_name["timings"]["dns_ms"] > 0


def test_each_host_of_many_pinged_at_once_gets_its_own_echoes():
    seen = ping(*({**UP, "target": f"127.0.0.{number}", "options": {"packets": 10}} for number in range(1, 6)))
    assert [one["error_kind"] for one in seen] == [None] * 5


def test_a_host_that_answers_nothing_is_down_when_the_time_is_over():
    (seen,) = ping({**LOST, "assertions": ["loss_percent < 50"]})
    assert (seen["error_kind"], seen["error_detail"]) == ("loss", "none of 3 packets came back")
    assert seen["timings"]["total_ms"] >= SHORT_SECONDS * 1000
    assert seen["findings"] == [{"assertion": "loss_percent < 50", "observed": "100.0", "holds": False}]


def test_a_host_that_no_way_leads_to_is_told():
    (seen,) = ping({**LOST, "target": "192.0.3.1"})
    assert seen["error_kind"] == "loss"
    assert seen["error_detail"] == "none of 3 packets came back: network is unreachable"


def test_where_pings_are_forbidden_the_check_says_what_to_set_and_nobody_is_down():
    (seen,) = ping(UP, permitted=False)
    assert seen["error_kind"] == "unsupported"
    assert "net.ipv4.ping_group_range" in seen["error_detail"]


@pytest.fixture
def run(probe, monkeypatch):
    """Run one check whose packets fare as told: seconds of their way, or what was wrong."""

    def run_check(fates, **more):
        async def fare(address, packets, timeout_seconds):
            return fates

        monkeypatch.setattr("server.probes.icmp._ping", fare)
        return probe("icmp", "127.0.0.1", packets=len(fates), **more)

    return run_check


def test_a_part_that_is_lost_is_for_the_assertions_to_judge(run):
    fates = [0.010, None, 0.020, 0.030]
    seen = run(fates)
    assert (seen.ok, seen.timings.total_ms) == (True, 20.0)
    assert run(fates, assertions=["loss_percent <= 25", "response_ms == 20"]).ok
    seen = run(fates, assertions=["loss_percent < 25"])
    assert failed(seen) == (ErrorKind.ASSERTION, "loss_percent < 25: was 25.0")


def test_of_what_is_lost_altogether_there_is_no_time(run):
    seen = run([None, None], assertions=["response_ms < 100"])
    assert seen.error_kind is ErrorKind.LOSS
    assert [(finding.observed, finding.holds) for finding in seen.findings] == [(None, False)]


def test_a_name_that_does_not_exist_is_told(probe):
    assert failed(probe("icmp", "name.invalid")) == (ErrorKind.DNS, "the name name.invalid could not be resolved")


@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "only-inside.example", "0x7f.1"])
def test_an_address_that_is_not_public_is_refused_before_anything_is_sent(probe, monkeypatch, target):
    async def refuse(*_):
        raise AssertionError("nothing may be sent")

    monkeypatch.setattr("server.probes.icmp._ping", refuse)
    assert probe("icmp", target, egress=Egress(())).error_kind is ErrorKind.BLOCKED


def test_three_packets_are_sent_unless_told_otherwise():
    assert IcmpOptions().packets == 3
