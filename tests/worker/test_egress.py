from ipaddress import ip_address, ip_network

import pytest

from server.egress import Egress

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "168.63.129.15",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2001:200::1",
    "2a00:1450:4001::1",
    "3ffe::1",
    "::ffff:8.8.8.8",
]

NOT_PUBLIC = [
    ("0.0.0.0", "this host"),
    ("0.1.2.3", "this network"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.0", "carrier-grade NAT"),
    ("100.100.100.200", "Alibaba's metadata"),
    ("100.127.255.255", "carrier-grade NAT"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("168.63.129.16", "Azure's host agent"),
    ("169.254.0.1", "link-local"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "ECS task metadata"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.8", "IPv4 dummy"),
    ("192.0.0.192", "Oracle's metadata"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4 relay"),
    ("192.168.0.1", "private"),
    ("192.168.255.255", "private"),
    ("198.18.0.1", "benchmarking"),
    ("198.19.255.255", "benchmarking"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::8.8.8.8", "IPv4-compatible"),
    ("::127.0.0.1", "IPv4-compatible"),
    ("::ffff:127.0.0.1", "mapped loopback"),
    ("::ffff:10.0.0.1", "mapped private"),
    ("::ffff:169.254.169.254", "mapped metadata"),
    ("::ffff:100.64.0.1", "mapped carrier-grade NAT"),
    ("::ffff:0:8.8.8.8", "SIIT"),
    ("64:ff9b::8.8.8.8", "NAT64"),
    ("64:ff9b::10.0.0.1", "NAT64 of a private address"),
    ("64:ff9b::a9fe:a9fe", "NAT64 of metadata"),
    ("64:ff9b:1::1", "local-use NAT64"),
    ("100::1", "discard-only"),
    ("100:0:0:1::1", "dummy prefix"),
    ("2001::1", "Teredo"),
    ("2001:0:7f00:1::", "Teredo"),
    ("2001:2::1", "benchmarking"),
    ("2001:10::1", "ORCHID"),
    ("2001:20::1", "ORCHIDv2"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4 of loopback"),
    ("2002:a00:1::1", "6to4 of a private address"),
    ("2002:808:808::1", "6to4"),
    ("3fff::1", "documentation"),
    ("3fff:fff::1", "documentation"),
    ("4000::1", "unassigned"),
    ("5f00::1", "segment routing"),
    ("fc00::1", "unique local"),
    ("fd00:ec2::254", "AWS metadata"),
    ("fd20:ce::254", "Google's metadata"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local with a zone"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("ff0e::1", "global multicast"),
    ("2606:4700:4700::1111%1", "a zone on a public address"),
    ("::ffff:8.8.8.8%1", "a zone on a mapped address"),
    ("localhost", "a name is no address"),
    ("127.1", "a short form is no resolved address"),
    ("", "nothing"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address):
    assert Egress().permits(address)


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC)
def test_an_address_that_is_not_public_unicast_is_refused(address, why):
    assert not Egress(()).permits(address), why


@pytest.mark.parametrize(
    ("network", "address", "passes"),
    [
        ("127.0.0.1/32", "127.0.0.1", True),
        ("127.0.0.1/32", "127.0.0.2", False),
        ("127.0.0.1/32", "::ffff:127.0.0.1", True),
        ("127.0.0.1/32", "::1", False),
        ("::1/128", "::1", True),
        ("10.0.0.0/8", "10.20.30.40", True),
        ("10.0.0.0/8", "64:ff9b::10.0.0.1", False),
        ("10.0.0.0/8", "2002:a00:1::1", False),
        ("::ffff:0:0/96", "127.0.0.1", False),
        ("::ffff:0:0/96", "::ffff:127.0.0.1", False),
        ("fd00::/8", "fd12:3456::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("64:ff9b::/96", "64:ff9b::808:808", True),
        ("10.0.0.0/8", "8.8.8.8", True),
    ],
)
def test_the_operator_allows_private_networks_one_by_one(network, address, passes):
    assert Egress((ip_network(network),)).permits(address) is passes


def test_an_address_object_is_judged_like_its_text():
    assert Egress().permits(ip_address("8.8.8.8"))
    assert not Egress().permits(ip_address("::ffff:10.0.0.1"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7F.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0x",
        "00.0.0.0",
        "10.1",
        "0xa9fea9fe",
        "169.254.43518",
        "[::1]",
        "::1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "%31%32%37.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u2460\u2461\u2466.0.0.1",
        "localhost",
        "LocalHost.",
        "db.localhost",
    ],
)
def test_a_host_that_spells_out_a_private_address_is_refused_before_it_is_saved(host):
    assert Egress().refuses_literal(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "8.8.8.8",
        "134744072",
        "[2606:4700:4700::1111]",
        "localhost.example.com",
        "notlocalhost",
        "127.0.0.1.example.com",
        "256.0.0.1",
        "4294967296",
        "127.0.0.256",
        "1.2.3.4.5",
        "08.0.0.1",
        "0o17",
        "0x0x7f",
        "1_0",
        "-1",
        "127..1",
        "",
        "9" * 5000,
    ],
)
def test_a_host_that_is_a_name_or_public_is_left_to_the_check_at_the_socket(host):
    assert not Egress().refuses_literal(host)


def test_an_allowed_literal_is_not_refused():
    egress = Egress((ip_network("127.0.0.1/32"),))
    assert not egress.refuses_literal("127.1")
    assert not egress.refuses_literal("localhost")
    assert egress.refuses_literal("127.0.0.2")
    assert Egress((ip_network("10.0.0.0/8"),)).refuses_literal("localhost")
