"""Stores for tests: one in memory that is an oracle, and one that fails where it is told to."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from consumer.errors import Conflict, Transient
from consumer.ports import Listed, Store, Stored
from consumer.stores.limits import check_key, check_prefix

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a store, in the order they were made."""

    verb: str
    key: str
    data: bytes = b""
    if_match: str | None = None


@dataclass
class FakeStore:
    """``Store`` in memory, and an oracle of how a store may be used.

    An object made by ``create`` or ``upload`` never changes, not even after it was deleted; one
    moved by ``swap`` never takes bytes that it held before. What breaks this raises
    ``AssertionError`` at once and stands in ``violations``, should the code under test swallow it.
    ``may_recur`` says which keys hold copies that may go back to old bytes (the mirror's): what
    ``copy`` may write, and ``swap`` may write again. That other bytes were there is a
    ``Conflict``, as everywhere, and stands in ``conflicts``.
    """

    may_recur: Callable[[str], bool] = lambda key: False
    clock: Callable[[], datetime] = lambda: EPOCH
    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    conflicts: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _modified: dict[str, datetime] = field(default_factory=dict)
    _created: dict[str, bytes] = field(default_factory=dict)  # for ever, deleted or not
    _held: dict[str, list[bytes]] = field(default_factory=dict)  # by swapped key

    def verbs(self) -> list[tuple[str, str]]:
        """The calls as (verb, key), for tests about what comes before what."""
        return [(call.verb, call.key) for call in self.calls]

    async def read(self, key: str) -> Stored | None:
        self._called(Call("read", key))
        data = self.objects.get(key)
        return None if data is None else Stored(data=data, etag=_etag(data))

    async def create(self, key: str, data: bytes) -> None:
        self._make(self._called(Call("create", key, data)))

    async def upload(self, key: str, file: Path) -> None:
        self._make(self._called(Call("upload", key, _bytes_of(file))))

    async def download(self, key: str, file: Path) -> str | None:
        self._called(Call("download", key))
        data = self.objects.get(key)
        if data is None:
            return None
        return _replaced(file, data)

    def _make(self, call: Call) -> None:
        key, data = call.key, call.data
        if key in self._held:
            self._violated(f"{key} is moved by swap: {call.verb} is for what never changes")
        if key in self.objects:
            if self.objects[key] != data:
                self.conflicts.append(call)
                raise Conflict(key)
            return
        if self._created.setdefault(key, data) != data:
            self._violated(f"{key} held other bytes before it was deleted")
        self._put(key, data)

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        call = self._called(Call("swap", key, data, if_match))
        if key in self._created:
            self._violated(f"{key} was made by create: it never changes")
        now = self.objects.get(key)
        if now == data:
            return _etag(data)
        if (None if now is None else _etag(now)) != if_match:
            self.conflicts.append(call)
            raise Conflict(key)
        held = self._held.setdefault(key, [])
        if data in held and not self.may_recur(key):
            self._violated(f"{key} takes bytes again that it held before: give it a sequence")
        held.append(data)
        self._put(key, data)
        return _etag(data)

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        check_prefix(prefix)
        self.calls.append(Call("list", prefix))
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix) and key in self.objects:
                data, modified = self.objects[key], self._modified[key]
                yield Listed(key=key, size=len(data), modified=modified, version=_etag(data))

    async def copy(self, source: str, target: str) -> str | None:
        check_key(source)
        self._called(Call("copy", target))
        if not self.may_recur(target):
            self._violated(f"{target} is no copy: nothing may be copied over it")
        if target in self._created or target in self._held:
            self._violated(f"{target} was not made by copy: it is not to be overwritten")
        data = self.objects.get(source)
        if data is None:
            return None
        self._put(target, data)
        return _etag(data)

    async def delete(self, key: str) -> None:
        self._called(Call("delete", key))
        self.objects.pop(key, None)

    def assert_sound(self) -> None:
        """Nothing was done that a store must not be asked to do."""
        assert not self.violations, self.violations

    def _called(self, call: Call) -> Call:
        check_key(call.key)
        self.calls.append(call)
        return call

    def _put(self, key: str, data: bytes) -> None:
        self.objects[key] = bytes(data)
        self._modified[key] = self.clock()

    def _violated(self, text: str) -> None:
        self.violations.append(text)
        raise AssertionError(text)


class Fault(Enum):
    """When a call fails: before it did anything, or after, so that only its answer is lost."""

    BEFORE = "before"
    AFTER = "after"


def _lost() -> BaseException:
    return Transient("store-disconnected", "the store broke the connection", shared=True)


class FaultyStore:
    """Any store whose n-th call (from 1, all verbs counted together) fails as the plan says.

    ``error`` makes what is raised; an exception that nothing catches stands for a crash. A listing
    is one call, which fails before its first object or after its last.
    """

    def __init__(
        self, inner: Store, plan: Mapping[int, Fault], error: Callable[[], BaseException] = _lost
    ) -> None:
        self.calls = 0
        self.failed: list[tuple[str, str, Fault]] = []  # what did fail: (verb, key, when)
        self._inner = inner
        self._plan = plan
        self._error = error

    async def read(self, key: str) -> Stored | None:
        after = self._begin("read", key)
        found = await self._inner.read(key)
        after()
        return found

    async def create(self, key: str, data: bytes) -> None:
        after = self._begin("create", key)
        await self._inner.create(key, data)
        after()

    async def upload(self, key: str, file: Path) -> None:
        after = self._begin("upload", key)
        await self._inner.upload(key, file)
        after()

    async def download(self, key: str, file: Path) -> str | None:
        after = self._begin("download", key)
        digest = await self._inner.download(key, file)
        after()
        return digest

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        after = self._begin("swap", key)
        etag = await self._inner.swap(key, data, if_match=if_match)
        after()
        return etag

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        after = self._begin("list", prefix)
        async for item in self._inner.list(prefix):
            yield item
        after()

    async def copy(self, source: str, target: str) -> str | None:
        after = self._begin("copy", target)
        version = await self._inner.copy(source, target)
        after()
        return version

    async def delete(self, key: str) -> None:
        after = self._begin("delete", key)
        await self._inner.delete(key)
        after()

    def _begin(self, verb: str, key: str) -> Callable[[], None]:
        """Fails now, or gives what is to be called when the call took effect."""
        self.calls += 1
        fault = self._plan.get(self.calls)
        if fault is Fault.BEFORE:
            self._fail(verb, key, fault)

        def after() -> None:
            if fault is Fault.AFTER:
                self._fail(verb, key, fault)

        return after

    def _fail(self, verb: str, key: str, fault: Fault) -> None:
        self.failed.append((verb, key, fault))
        raise self._error()


def each_call_once(calls: int) -> Iterator[dict[int, Fault]]:
    """A plan for each of the calls, failing before and after it took effect. ``calls`` is the
    number that a run without faults makes (``FaultyStore(inner, {}).calls``)."""
    for number in range(1, calls + 1):
        for fault in Fault:
            yield {number: fault}


def _bytes_of(file: Path) -> bytes:
    return file.read_bytes()


def _replaced(file: Path, data: bytes) -> str:
    file.write_bytes(data)
    return _etag(data)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
