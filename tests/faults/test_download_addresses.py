"""Addresses by the thousand are judged as the registries say; Python's own table is the oracle."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from consumer.addresses import Admitted
from tests.seeds import seeds


def oracle(address: IPv4Address | IPv6Address) -> bool:
    """Whether it may be asked, by Python's own table; it has no word on some that it calls global,
    so those are told here by their text."""
    if isinstance(address, IPv4Address):
        special = str(address).startswith("192.88.99.") or str(address) == "168.63.129.16"
        return address.is_global and not address.is_multicast and not special
    text = address.exploded
    translated = address.sixtofour or address.teredo or address.ipv4_mapped
    outside = text[0] not in "23" or text.startswith(("3fff:0", "2001:00", "2001:01"))
    isatap = text[20:29] in ("0000:5efe", "0200:5efe", "0100:5efe", "0300:5efe")
    return address.is_global and not (translated or outside or isatap or address.is_multicast)


@pytest.mark.parametrize("seed", seeds())
def test_random_addresses_are_judged_as_the_registries_say(seed: int) -> None:
    rng, admitted = random.Random(seed), Admitted()
    edges = [
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "fc00::/7", "fe80::/10", "2002::/16",
        "2001::/32", "2001:db8::/32", "::ffff:0:0/96", "2000::/3", "ff00::/8",
    ]  # fmt: skip
    for _ in range(600):
        network = ip_network(rng.choice(edges))
        version = network.max_prefixlen
        number = int(network[0]) + rng.choice([
            rng.randrange(network.num_addresses), -1, 0, network.num_addresses - 1,
            network.num_addresses,
        ])  # fmt: skip
        if rng.random() < 0.4:
            number = rng.getrandbits(version)
        if version == 128 and rng.random() < 0.1:
            number = number & ~(0xFFFFFFFF << 32) | 0x5EFE << 32
        number %= 1 << version
        address = ip_address(number) if version == 32 else IPv6Address(number)
        assert (admitted.refusal(str(address)) is None) == oracle(address), address
