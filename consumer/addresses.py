"""Which URLs and which addresses may be fetched from: pure judgement, no I/O.

A URL is read once, by one parser, and what is judged is what is asked: texts that two parsers could
read differently are refused. An address is judged as the number that is connected to, so no
spelling of a host's name matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

from yarl import URL

from consumer.errors import Permanent

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_AS_IT_IS = re.compile(r"[!-~]+")  # signatures may cover a URL's very characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f]|^ | $")
_NAME = re.compile(r"(?=.{1,254}$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)

# IANA's registry of special-purpose IPv4 addresses, with multicast and what was 6to4's anycast.
_SPECIAL_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# All that is global unicast lies in the first; of it these are not: protocols (Teredo, benchmarks,
# ORCHID), documentation, 6to4. What translates or maps IPv4 lies in them or outside.
_GLOBAL_6 = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
# Where clouds tell a machine its own credentials, some of them at addresses that look public.
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200",
        "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    )
)  # fmt: skip
_LOW_32 = (1 << 32) - 1
# Prefixes whose last 32 bits are an IPv4 address: compatible, mapped, translated (RFC 2765), NAT64.
_ENDS_IN_4 = tuple(
    IPv6Network(text)
    for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)
_6TO4, _TEREDO = IPv6Network("2002::/16"), IPv6Network("2001::/32")
_ISATAP = 0x00005EFE  # RFC 5214: the interface's first half, but for the universal bit


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port, as a credential is bound to them."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked as far as its text tells."""

    text: str
    url: URL
    origin: Origin

    @classmethod
    def read(cls, text: str) -> Target:
        """Raises ``Permanent`` (download-scheme)."""
        try:
            url = URL(text, encoded=_AS_IT_IS.fullmatch(text) is not None)
            scheme, host, port = url.scheme, url.raw_host or "", url.port
            named, bracketed = "@" in url.raw_authority, "[" in url.raw_authority
        except (ValueError, TypeError) as error:
            raise no_url() from error
        if scheme not in ("http", "https") or not host:
            raise Permanent("download-scheme", "only http and https URLs are fetched")
        if named:
            raise Permanent("download-scheme", "a URL that holds a user's name is not fetched")
        if _CONTROL.search(text) or not port or not _is_host(host) or bracketed != (":" in host):
            raise no_url()
        return cls(text, url, Origin(scheme, host.lower(), port))


def host_name(text: str) -> str:
    """A configured host as `Target` has it: lower case, IDNA."""
    try:
        return Target.read(f"https://{text}/").origin.host
    except Permanent:
        return text.casefold()


def no_url() -> Permanent:
    return Permanent("download-scheme", "not a URL")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The addresses that may be connected to: those in ``networks``, which a person named, and,
    unless ``plain``, public ones."""

    networks: tuple[Network, ...] = ()
    plain: bool = False

    def refusal(self, address: str) -> str | None:
        """The reason's slug; None when it may be connected to."""
        try:
            found = ip_address(address)
        except ValueError:
            return "download-address"
        if not self._reachable(found):
            return "download-address"
        return "download-plain-http" if self.plain and not self._named(found) else None

    def _reachable(self, address: Address) -> bool:
        if address in _METADATA:  # a wide network does not mean them
            return any(n.num_addresses == 1 and address in n for n in self.networks)
        within = embedded(address) if isinstance(address, IPv6Address) else []
        if not all(self._reachable(one) for one in within):
            return False
        return self._named(address) or is_public(address)

    def _named(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether it is a plain unicast address of the internet: none that is private, special, or
    stands for another address."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    if address not in _GLOBAL_6 or any(address in network for network in _SPECIAL_6):
        return False
    return not _is_isatap(address)


def embedded(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that packets to it may end at."""
    number = int(address)
    if number <= 1:  # none, and loopback
        return []
    if any(address in network for network in _ENDS_IN_4) or _is_isatap(address):
        return [IPv4Address(number & _LOW_32)]
    if address in _6TO4:
        return [IPv4Address(number >> 80 & _LOW_32)]
    if address in _TEREDO:  # RFC 4380: the server, and the client's with its bits turned
        return [IPv4Address(number >> 64 & _LOW_32), IPv4Address(~number & _LOW_32)]
    return []


def _is_isatap(address: IPv6Address) -> bool:
    return int(address) >> 32 & 0xFCFFFFFF == _ISATAP


def _is_host(host: str) -> bool:
    """A name, or an address without a zone."""
    if ":" not in host:
        return _NAME.fullmatch(host) is not None
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return False
