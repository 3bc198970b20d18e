"""Budgets of refused requests, for one address and for one source, and of log lines: pure.

Memory is bounded: each table keeps its newest keys only. An address that fell out of one has a
clean slate, which is why a source has a budget of its own.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MOST_ADDRESSES = 50_000  # remembered at a time, of each kind
GOOD_S = 86_400.0  # how long an address is known for a good request
MINUTE_S = 60.0

Now = Callable[[], float]  # monotonic seconds


class Recent:
    """Keys that were seen within ``lasts_s``, more than 0; of more than ``most``, the newest."""

    def __init__(self, lasts_s: float, most: int, now: Now = time.monotonic) -> None:
        self._lasts_s, self._most, self._now = lasts_s, most, now
        self._seen: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, key: Hashable) -> None:
        now = self._now()
        self._seen[key] = now
        self._seen.move_to_end(key)
        while len(self._seen) > self._most or self._is_over(next(iter(self._seen.values())), now):
            self._seen.popitem(last=False)

    def clear(self) -> None:
        self._seen.clear()

    def __contains__(self, key: Hashable) -> bool:
        at = self._seen.get(key)
        return at is not None and not self._is_over(at, self._now())

    def __len__(self) -> int:
        return len(self._seen)

    def _is_over(self, at: float, now: float) -> bool:
        return now - at >= self._lasts_s


class Buckets:
    """A leaky bucket for each key: ``per_minute`` fit in, and as many leak out in a minute."""

    def __init__(self, per_minute: int, most: int, now: Now = time.monotonic) -> None:
        self._size, self._most, self._now = per_minute, most, now
        self._filled: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # level, when

    def add(self, key: Hashable) -> None:
        self._filled[key] = (min(self._size, self._level(key) + 1.0), self._now())
        self._filled.move_to_end(key)
        if len(self._filled) > self._most:
            self._filled.popitem(last=False)

    def wait_s(self, key: Hashable) -> float:
        """Seconds until one more fits; 0 when it does."""
        over = self._level(key) - (self._size - 1.0)
        return max(0.0, over) * MINUTE_S / self._size

    def __len__(self) -> int:
        return len(self._filled)

    def _level(self, key: Hashable) -> float:
        level, at = self._filled.get(key, (0.0, 0.0))
        return max(0.0, level - (self._now() - at) * self._size / MINUTE_S)


class Failures:
    """Who has had so many requests refused that the next is looked at only if that is cheap.

    An address that sent a verified request within the last day is never made to wait: a proxy that
    nobody has listed as trusted carries good and bad alike, and a platform does not send again.
    Whoever can repeat a signed request earns the same: the budgets save work, they are no lock.
    While a source is over its budget, a sender's first large request from a new address is told to
    wait, too; should it not come again, the sweep finds what it had to tell.
    """

    def __init__(
        self, per_address: int = 60, per_source: int = 6000, now: Now = time.monotonic
    ) -> None:
        self._good = Recent(GOOD_S, MOST_ADDRESSES, now)
        self._addresses = Buckets(per_address, MOST_ADDRESSES, now)
        self._sources = Buckets(per_source, MOST_ADDRESSES, now)

    def good(self, address: str) -> None:
        """A verified request came from there."""
        self._good.add(address)

    def refused(self, address: str, source: str) -> None:
        self._addresses.add(address)
        if address not in self._good:
            self._sources.add(source)

    def over(self, address: str, source: str) -> tuple[str, int] | None:
        """None when the request is looked at; else a reason slug and the seconds to wait."""
        if address in self._good:
            return None
        if wait_s := self._addresses.wait_s(address):
            return "flood-address", math.ceil(wait_s)
        if wait_s := self._sources.wait_s(source):
            return "flood-source", math.ceil(wait_s)
        return None


class Sample:
    """At most ``per_s`` log lines a second, after a burst of as many; what is left out is
    counted."""

    def __init__(self, per_s: float = 20.0, now: Now = time.monotonic) -> None:
        self._per_s, self._now = per_s, now
        self._room, self._at = per_s, now()
        self._left_out = 0

    def take(self) -> int | None:
        """None when the line is to be left out; else how many were since the last."""
        now = self._now()
        self._room = min(self._per_s, self._room + (now - self._at) * self._per_s)
        self._at = now
        if self._room < 1.0:
            self._left_out += 1
            return None
        self._room -= 1.0
        left_out, self._left_out = self._left_out, 0
        return left_out


def address_of(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text names, without zone; one that is mapped into IPv6 is the IPv4
    address (RFC 4291, 2.5.5.2). None when it names none."""
    try:
        found = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def counted_as(text: str | None) -> str:
    """What an address counts as: itself, or the /64 of IPv6, which one customer has whole."""
    found = address_of(text)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found) if found else ""
