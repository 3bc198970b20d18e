"""Which URLs and addresses may be fetched from: every special address, every odd spelling."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from consumer.addresses import Admitted, Target, host_name, is_public
from consumer.errors import Permanent

ANYWHERE = Admitted()


def named(*networks: str, plain: bool = False) -> Admitted:
    return Admitted(tuple(ip_network(one) for one in networks), plain)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1",
     "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700::1111",
     "2a00:1450:4001:82a::200e", "2620:4f:8000::1"],
)  # fmt: skip
def test_a_public_address_may_be_asked(address: str) -> None:
    assert ANYWHERE.refusal(address) is None


@pytest.mark.parametrize(
    "address",
    [
        # private, shared, loopback, link-local, unspecified, multicast, reserved, broadcast
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "100.127.255.255",
        "127.0.0.1", "127.255.255.254", "169.254.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255",
        # documentation, benchmarks, protocols, what was 6to4's anycast
        "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.0.0.8",
        "192.88.99.1",
        # metadata
        "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254",
        # the same in the other family
        "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1", "100::1",
        "2001:db8::1", "3fff::1", "2001:2::1", "2001:10::1", "2001:20::1", "5f00::1", "4000::1",
        # what stands for an IPv4 address, a public one too
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "::127.0.0.1", "::8.8.8.8",
        "2002:7f00:1::", "2002:808:808::", "2001:0:808:808::1", "64:ff9b::7f00:1",
        "64:ff9b::808:808", "64:ff9b:1::7f00:1", "2606:4700::5efe:7f00:1",
        "2606:4700::200:5efe:7f00:1", "2606:4700::100:5efe:a00:1",
        # what is none
        "", "localhost", "127.1", "1.2.3.4.5", "fe80::1%eth0", "0177.0.0.1",
    ],
)  # fmt: skip
def test_any_other_address_may_not(address: str) -> None:
    assert ANYWHERE.refusal(address) == "download-address"


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.1.0.0/16", "10.1.2.3"), ("127.0.0.0/8", "127.0.0.1"), ("::1/128", "::1"),
        ("fd12::/16", "fd12::5"), ("169.254.169.254/32", "169.254.169.254"),
        ("fd00:ec2::254/128", "fd00:ec2::254"), ("64:ff9b::/96", "64:ff9b::808:808"),
        ("::/0", "fe80::1"), ("0.0.0.0/0", "0.0.0.0"),
    ],
)  # fmt: skip
def test_a_network_that_is_named_may_be_asked(network: str, address: str) -> None:
    assert named(network).refusal(address) is None


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.1.0.0/16", "10.2.0.1"), ("10.1.0.0/16", "::ffff:10.1.2.3"),
        ("169.254.0.0/16", "169.254.169.254"), ("169.254.169.254/31", "169.254.169.254"),
        ("0.0.0.0/0", "169.254.169.254"), ("0.0.0.0/0", "168.63.129.16"),
        ("::/0", "fd00:ec2::254"), ("::/0", "::ffff:169.254.169.254"),
        ("64:ff9b::/96", "64:ff9b::a9fe:a9fe"), ("64:ff9b::/96", "64:ff9b::7f00:1"),
        ("2002::/16", "2002:a9fe:a9fe::1"), ("::/0", "2606:4700::5efe:a9fe:a9fe"),
    ],
)  # fmt: skip
def test_a_network_names_neither_more_nor_what_it_translates_to(network: str, address: str) -> None:
    assert named(network).refusal(address) == "download-address"


def test_both_the_prefix_and_what_it_translates_to_may_be_named() -> None:
    assert named("64:ff9b::/96", "10.0.0.0/8").refusal("64:ff9b::a00:1") is None


def test_over_plain_http_only_a_named_network_is_asked() -> None:
    plain = named("10.0.0.0/8", plain=True)
    assert plain.refusal("10.0.0.1") is None
    assert plain.refusal("8.8.8.8") == "download-plain-http"
    assert plain.refusal("192.168.0.1") == "download-address"


def test_what_is_public_here_is_global_by_the_registry_of_the_language() -> None:
    """Python's own table, which lacks some and has no word on translation, is never narrower."""
    step = 0x00FFF1
    for number in range(0, 1 << 32, step):
        address = ip_address(number)
        if is_public(address):
            assert address.is_global
            assert not address.is_multicast


# URLs


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://Files.Example/a", "files.example", 443), ("http://h:8080/", "h", 8080),
        ("HTTPS://h/", "h", 443), ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("https://my_bucket.s3.example/a b", "my_bucket.s3.example", 443),
        ("https://[2606:4700::1]/x", "2606:4700::1", 443), ("https://h./", "h.", 443),
        ("https://a。b/", "a.b", 443), ("http://①②⑦.0.0.1/ä", "127.0.0.1", 80),
        ("https://h/p@q?r=s@t", "h", 443), ("http://0x7f.1/", "0x7f.1", 80),
    ],
)  # fmt: skip
def test_a_url_is_read_as_it_is_asked(text: str, host: str, port: int) -> None:
    target = Target.read(text)
    assert (target.origin.host, target.origin.port) == (host, port)
    assert (target.url.raw_host or "").lower() == host


@pytest.mark.parametrize(
    "text",
    [
        "", "h", "//h/", "ftp://h/", "file:///etc/passwd", "http:h", "http:/h", "http:///h",
        "javascript:1", "http://", "https://[::1", "https://[::1]x/", "https://[v1.x]/",
        "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://user@h/",
        "https://user:pass@h/", "https://@h/", "https://good.example\\@h/", "https://h\\.x/",
        "https://h%2e/", "https://%31%32%37.0.0.1/", "https://h\t/", "https://h/\n", " https://h/",
        "https://h/ ", "https://h\x00/", "https://h:0/", "https://h:65536/", "https://h:-1/",
        "https://h:x/", "https://a..b/", "https://.h/", f"https://{'a' * 64}.h/", "https://h*/",
        f"https://{'a.' * 130}h/", "https://\ud800/", "https://h /", "https://a,b/", "ht\ttps://h/",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_no_url(text: str) -> None:
    with pytest.raises(Permanent) as caught:
        Target.read(text)
    assert caught.value.reason == "download-scheme"
    assert "h/" not in caught.value.message


def test_a_configured_host_is_compared_as_urls_are_read() -> None:
    assert host_name("BÜCHER.example") == "xn--bcher-kva.example"
    assert host_name("nonsense host") == "nonsense host"
