"""Who is let go when a listener is crowded."""

from __future__ import annotations

import random

import pytest

from consumer.crowd import Crowd, Guest
from tests.fakes_clock import Seconds
from tests.seeds import seeds


def crowd(most: int = 4, most_bytes: int = 1000) -> Crowd:
    return Crowd(most, most_bytes, Seconds())


def enter(it: Crowd, peer: str) -> tuple[Guest, Guest | None]:
    return it.enter(peer, lambda: None)


def test_the_longest_idle_of_the_address_with_most_makes_room() -> None:
    it = crowd()
    enter(it, "a")
    first, _ = enter(it, "b")
    enter(it, "b")
    enter(it, "c")
    assert enter(it, "d")[1] is first
    assert len(it) == 4


def test_who_idles_goes_before_who_asks() -> None:
    it = crowd(2)
    asking, _ = enter(it, "a")
    it.asking(asking)
    idle, _ = enter(it, "a")
    assert enter(it, "b")[1] is idle


def test_an_unfinished_request_goes_when_nobody_idles() -> None:
    it = crowd(2)
    for peer in "ab":
        it.asking(enter(it, peer)[0])
    assert enter(it, "c")[1] is not None


def test_who_sent_a_verified_request_goes_after_every_stranger() -> None:
    it = crowd(3)
    known = [enter(it, "known")[0] for _ in range(2)]
    for guest in known:
        it.asking(guest)
        it.verified(guest)
        it.answered(guest)
    stranger, _ = enter(it, "stranger")
    it.asking(stranger)
    assert enter(it, "other")[1] is stranger


def test_a_verified_request_never_goes_and_the_new_one_is_turned_away() -> None:
    it = crowd(2)
    for _ in range(2):
        it.verified(enter(it, "a")[0])
    new, goes = enter(it, "b")
    assert goes is new
    assert len(it) == 2


def test_who_holds_most_is_refused_when_all_hold_too_much() -> None:
    it = crowd(most_bytes=1000)
    small, large, last = (enter(it, peer)[0] for peer in "abc")
    assert it.received(small, 100) == []
    assert it.received(large, 850) == []
    assert it.received(last, 60) == [large]
    assert it.held == 160


def test_a_stranger_is_refused_before_a_known_sender_who_holds_more() -> None:
    it = crowd(most_bytes=1000)
    known = enter(it, "known")[0]
    it.verified(known)
    it.answered(known)
    stranger = enter(it, "stranger")[0]
    it.received(known, 700)
    assert it.received(stranger, 301) == [stranger]


def test_when_only_verified_requests_hold_memory_the_newest_is_refused() -> None:
    it = crowd(most_bytes=1000)
    kept, new = enter(it, "a")[0], enter(it, "b")[0]
    it.received(kept, 990)
    it.verified(kept)
    assert it.received(new, 20) == [new]


@pytest.mark.parametrize("seed", seeds())
def test_whatever_happens_the_bounds_hold_and_the_books_agree(seed: int) -> None:
    chance = random.Random(seed)
    it = crowd(most=8, most_bytes=5000)
    inside: dict[Guest, str] = {}
    held: dict[Guest, int] = {}
    for _ in range(2000):
        turn = chance.random()
        if turn < 0.3 or not inside:
            guest, goes = enter(it, chance.choice("abcd"))
            inside[guest], held[guest] = "idle", 0
            if goes is not None:
                assert inside.pop(goes) != "verified"
                held.pop(goes)
        else:
            _step(it, chance, inside, held)
        assert len(it) == len(inside) <= 8
        assert it.held == sum(held.values()) == sum(guest.held for guest in inside)
    for guest in list(inside):
        it.leave(guest)
        it.leave(guest)
    assert (len(it), it.held) == (0, 0)


def _step(
    it: Crowd, chance: random.Random, inside: dict[Guest, str], held: dict[Guest, int]
) -> None:
    guest = chance.choice(list(inside))
    match chance.choice(["asking", "verified", "answered", "leave", "received", "received"]):
        case "asking" if inside[guest] == "idle":
            it.asking(guest)
            inside[guest] = "asking"
        case "verified" if inside[guest] == "asking":
            it.verified(guest)
            inside[guest] = "verified"
        case "answered":
            it.answered(guest)
            inside[guest], held[guest] = "idle", 0
        case "leave":
            it.leave(guest)
            del inside[guest], held[guest]
        case "received" if inside[guest] != "verified":
            size = chance.randrange(1500)
            held[guest] += size
            for one in it.received(guest, size):
                assert inside[one] != "verified"
                held[one] = one.held
            firm = sum(held[one] for one, state in inside.items() if state == "verified")
            assert it.held <= max(5000, firm + held[guest])
