"""A whole story on a real S3 server whose answers get lost, lie and lag, request by request: the
lake, its log and its mirror end as if nothing had happened."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from consumer.errors import Conflict, Permanent, Transient
from consumer.log.log import TileLog
from consumer.log.note import Signer
from consumer.log.read import entries
from consumer.log.tail import LogTail
from consumer.log.verify import verify
from consumer.model import Action, Outcome
from consumer.ports import Cursor, Store
from consumer.stores.s3 import S3Store
from handlers import audit
from handlers.mirror import Mirror
from tests.fakes_platform import event
from tests.fakes_platform import snapshot as snapshot_of
from tests.handlers.lake_house import ORIGIN, LakeHouse
from tests.proxy_http import HttpProxy, Verdict
from tests.seeds import seeds
from tests.servers_s3 import S3Server, use_credentials

T = TypeVar("T")
VKEY = Signer.from_seed(ORIGIN, b"s" * 32).verifier.vkey
TRIES = 60  # of one step
SHARE = 0.15  # of requests meet something
STALLS_S = 0.3  # that a client waits for an answer
ANY = (
    Verdict.LOSE_REQUEST,
    Verdict.LOSE_ANSWER,
    Verdict.FAIL_BEFORE,
    Verdict.FAIL_AFTER,
    Verdict.BUSY_AFTER,
    Verdict.SLOW_DOWN,
    Verdict.NONSENSE,
    Verdict.WRONG_TAG,
    Verdict.SKEWED,
    Verdict.DENIED,
    Verdict.ELSEWHERE,
    Verdict.MOVED,
    Verdict.STALL_AFTER,
)
OF = {
    "PUT": (*ANY, Verdict.RACE, Verdict.NOT_MET, Verdict.DAMAGE, Verdict.TEAR),
    "GET": (*ANY, Verdict.CUT_ANSWER, Verdict.CUT_HALF),
    "DELETE": ANY[:-1],
}


class Chaos(HttpProxy):
    """What happens to a request is drawn by lot while ``on``; listings may be older ones."""

    def __init__(self, target_port: int, lot: random.Random) -> None:
        super().__init__(target_port)
        self.lot, self.on = lot, True
        self.met: Counter[Verdict | str] = Counter()
        self._lists: dict[bytes, list[bytes]] = {}

    def verdict(self, method: str) -> Verdict:
        if not self.on or self.lot.random() > SHARE:
            return Verdict.PASS
        verdict = self.lot.choice(OF.get(method, (Verdict.PASS,)))
        self.met[verdict] += 1
        return verdict

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        answer = await super()._forward(head, body)
        line = head.split(b"\r\n", 1)[0]
        if b"list-type=2" not in line or b" 200 " not in answer[:20]:
            return answer
        older = self._lists.setdefault(line, [])
        older.append(answer)
        if self.on and self.lot.random() < SHARE:
            self.met["an older list"] += len(older) > 1
            return self.lot.choice(older)
        return answer


@dataclass
class Bucket(LakeHouse):
    """The lake and its log in a bucket; every step is tried until it works."""

    place: Any = None  # a store
    events: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.store = self.place
        self.log = TileLog(
            self.place,
            signer=Signer.from_seed(ORIGIN, b"s" * 32),
            origin=ORIGIN,
            index_path=self._folder / "bucket.db",
            clock=self.clock,
        )
        self.failures: Counter[str] = Counter()

    async def until_done(self, step: Callable[[], Awaitable[T]]) -> T:
        for _ in range(TRIES):
            try:
                return await step()
            except (Transient, Conflict) as error:
                self.failures[error.reason] += 1
        raise AssertionError(f"it fails again and again: {self.failures}")

    async def see(self, task: str = "task-1", **changes: Any) -> Any:
        self.platform.tasks[task] = snapshot_of(task, **changes)
        return await self.exported(task, Action.MOVE)

    async def remove(self, task: str = "task-1") -> None:
        del self.platform.tasks[task]
        await self.exported(task, Action.DELETE)

    async def exported(self, task: str, action: Action) -> Any:
        self.events += 1
        told = event(task, name=f"e{self.events}", action=action)

        async def once() -> Any:
            (result,) = await self.handle(told)
            if isinstance(result, Transient | Permanent):
                raise result
            return result

        result = await self.until_done(once)
        if isinstance(result, Outcome):
            await self.queue.put([result])
        while messages := await self._waiting():
            new = [one for message in messages for one in audit.entries_of(message)]
            await self.until_done(lambda new=new: self.log.append(new))  # type: ignore[misc]
        return result

    async def mirrored(self) -> None:
        """By processes of which each begins where the last one was."""
        cursor = Cursor()
        self.tail = LogTail(self.place, poll_s=0.001)

        async def once() -> None:
            nonlocal cursor
            mirror = Mirror(self.follow_ports(), interval_s=0.0, check_s=3600.0)
            cursor = (await self.catch_up(mirror, cursor=cursor)).cursor

        await self.until_done(once)


async def first(house: LakeHouse) -> None:
    await house.approve("a", name="study")
    await house.see("b", name="other")


async def then(house: LakeHouse) -> None:
    await house.approve("b", name="study", version="v2", value=2)
    await house.send_back("a")


async def last(house: LakeHouse) -> None:
    await house.remove("a")
    await house.send_back("b", name="other")


PARTS: Sequence[Callable[[LakeHouse], Awaitable[None]]] = (first, then, last)


async def played(store: S3Store) -> Bucket:
    house = Bucket(place=store)
    try:
        for part in PARTS:
            await part(house)
            house.pass_time(1)
            await house.mirrored()
    finally:
        await house.log.close()
        shutil.rmtree(house._folder)
    return house


async def the_end(store: Store) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Every object but what tells of tries, and the log's entries but those about tries."""
    objects = {}
    async for item in store.list(""):
        if not item.key.startswith(("log/", "followers/")):
            stored = await store.read(item.key)
            assert stored is not None
            objects[item.key] = stored.data
    log = [one.data async for one in entries(store)]
    assert (await verify(store, vkey=VKEY)).ok
    return objects, [one for one in log if one["kind"] in ("lake", "history")]


@asynccontextmanager
async def bucket(server: S3Server, endpoint: str) -> AsyncIterator[S3Store]:
    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    store = S3Store(
        server.bucket,
        server.new_prefix(),
        endpoint=endpoint,
        region="us-east-1",
        read_timeout_s=STALLS_S,
        sleep=at_once,
    )
    yield store
    store.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", seeds(0.1))
async def test_a_store_that_lies_and_lags_changes_nothing(
    seed: int, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_credentials(monkeypatch)
    async with (
        Chaos(s3_server.port, random.Random(seed)) as proxy,
        bucket(s3_server, s3_server.endpoint) as calm,
        bucket(s3_server, proxy.endpoint) as rough,
    ):
        await played(calm)
        house = await played(rough)
        proxy.on = False
        assert sum(proxy.met.values()) > 10
        assert house.failures
        objects, log = await the_end(rough)
        expected, of_calm = await the_end(calm)
        assert objects == expected
        assert log == of_calm
        assert [one["sequence"] for one in log if one["kind"] == "lake"] == [1, 1, 2, 2, 3, 3]
