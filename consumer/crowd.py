"""Who is connected to a listener, and who must go when there are too many, or too much is held.

Pure: it names who is to be let go; the listener does it. First go strangers, from whom no verified
request has come lately: of the address that has most connections, the one that has idled longest
(nothing complete was asked yet, or all was answered), then the one whose request has been
incomplete longest; then the others, likewise. A verified request is never let go.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from consumer.limits import GOOD_S, MOST_ADDRESSES, Recent

MOST_BYTES = 64 << 20  # of incomplete or unanswered requests, together

End = Callable[[], None]


@dataclass(slots=True, eq=False)
class Guest:
    """One connection. ``close`` ends it at once; ``refuse``, while there is one, ends but what it
    asks."""

    peer: str  # as `limits.counted_as` has it
    close: End
    refuse: End | None = None
    held: int = 0  # bytes that came since all before was answered
    rank: int = 0  # the row it stands in; `_FIRM`: none


_FIRM = 4  # verified


@dataclass(slots=True)
class _Row:
    """Guests who may be let go, by peer; within a peer in the order they came in."""

    by_peer: dict[str, dict[Guest, None]] = field(default_factory=dict)
    by_size: dict[int, dict[str, None]] = field(default_factory=dict)
    largest: int = 0

    def add(self, guest: Guest) -> None:
        of_peer = self.by_peer.setdefault(guest.peer, {})
        of_peer[guest] = None
        self._resized(guest.peer, len(of_peer) - 1, len(of_peer))

    def discard(self, guest: Guest) -> None:
        of_peer = self.by_peer[guest.peer]
        del of_peer[guest]
        self._resized(guest.peer, len(of_peer) + 1, len(of_peer))
        if not of_peer:
            del self.by_peer[guest.peer]

    def first(self) -> Guest | None:
        """The oldest of the peer with most."""
        if not self.largest:
            return None
        peer = next(iter(self.by_size[self.largest]))
        return next(iter(self.by_peer[peer]))

    def _resized(self, peer: str, old: int, new: int) -> None:
        """Sizes change by one, so the largest does, too."""
        if old:
            del self.by_size[old][peer]
            if not self.by_size[old]:
                del self.by_size[old]
        if new:
            self.by_size.setdefault(new, {})[peer] = None
        if new > self.largest or (old == self.largest and old not in self.by_size):
            self.largest = new


class Crowd:
    """At most ``most`` connections, which hold at most ``most_bytes`` together."""

    def __init__(
        self,
        most: int,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most, self._most_bytes = most, most_bytes
        self._known = Recent(GOOD_S, MOST_ADDRESSES, now)
        self._rows = tuple(_Row() for _ in range(_FIRM))
        self._guests: dict[Guest, None] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def held(self) -> int:
        """Bytes that all of them hold."""
        return self._held

    def enter(self, peer: str, close: End) -> tuple[Guest, Guest | None]:
        """A new connection, and who has to go for it: perhaps itself, when all others are
        verified."""
        guest = Guest(peer, close)
        goes: Guest | None = None
        if len(self._guests) >= self.most:
            goes = next((one for row in self._rows if (one := row.first())), guest)
            self.leave(goes)
        if goes is not guest:
            self._guests[guest] = None
            self._place(guest, asking=False)
        return guest, goes

    def leave(self, guest: Guest) -> None:
        """It is gone, or as good as gone; saying so twice is fine."""
        if guest not in self._guests:
            return
        del self._guests[guest]
        self._unplace(guest)
        self._emptied(guest)

    def received(self, guest: Guest, size: int) -> list[Guest]:
        """More bytes came; returns whom to refuse so that a quarter of the room is free again."""
        if guest not in self._guests:
            return []
        guest.held += size
        self._held += size
        return self._relieved() if self._held > self._most_bytes else []

    def asking(self, guest: Guest) -> None:
        """A request's head is complete."""
        self._move(guest, asking=True)

    def verified(self, guest: Guest) -> None:
        """What it asks is to be kept."""
        self._known.add(guest.peer)
        if guest in self._guests:
            self._unplace(guest)
            guest.rank = _FIRM

    def answered(self, guest: Guest) -> None:
        """It idles again, and holds nothing."""
        self._emptied(guest)
        self._move(guest, asking=False)

    def _move(self, guest: Guest, *, asking: bool) -> None:
        if guest in self._guests:
            self._unplace(guest)
            self._place(guest, asking=asking)

    def _place(self, guest: Guest, *, asking: bool) -> None:
        guest.rank = 2 * (guest.peer in self._known) + asking
        self._rows[guest.rank].add(guest)

    def _unplace(self, guest: Guest) -> None:
        if guest.rank != _FIRM:
            self._rows[guest.rank].discard(guest)

    def _relieved(self) -> list[Guest]:
        """Strangers before known ones, then who holds most. One look at all frees much, so that
        looking costs little for each byte that came."""
        refused: list[Guest] = []
        holding = [one for one in self._guests if one.held and one.rank != _FIRM]
        for guest in sorted(holding, key=lambda one: (one.rank // 2, -one.held)):
            if self._held <= self._most_bytes * 3 // 4:
                break
            refused.append(guest)
            self._emptied(guest)
        return refused

    def _emptied(self, guest: Guest) -> None:
        self._held -= guest.held
        guest.held = 0
