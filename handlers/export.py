"""Makes the lake equal to what the platform holds, for every task that an event names.

A pointer is read before the state is fetched and swapped after it: whoever wins a race has fetched
later than whoever it replaced, so a pointer never goes backwards, with no clock of ours involved.
Whoever reads a pointer puts the outcome it carries into ``audit`` first, so a crash between the
swap and the put loses nothing.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from datetime import datetime

import msgspec

from consumer.errors import Conflict, Permanent, Transient
from consumer.model import (
    Missing,
    Outcome,
    Pointer,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
    canonical,
    decode,
)
from consumer.ports import Ports, Result, Work
from handlers import lanes, layout, pointers, revisions
from handlers.answers import Answer, crash, fetch, fetch_apart
from handlers.threads import together

LANE = lanes.EXPORT

TASKS_AT_ONCE = 8
RACES = 5  # lost in a row before the event waits
SHOWING_TRIES = 3  # fetches that may fail to show the event that announced a change


@dataclass(frozen=True, slots=True)
class Found:
    """A pointer as it was read; both None when the task has none yet."""

    pointer: Pointer | None
    etag: str | None


async def handle(batch: Sequence[Work], ports: Ports) -> AsyncIterator[tuple[Work, Result]]:
    """Several events of one task cost one fetch; each task's results come when it is done."""
    works: dict[TaskKey, list[Work]] = defaultdict(list)
    for work in batch:
        if isinstance(work.message, TaskEvent):
            works[work.message.key].append(work)
    done: asyncio.Queue[tuple[Work, Result] | None] = asyncio.Queue()
    run = asyncio.ensure_future(_export_all(works, ports, done.put_nowait))
    run.add_done_callback(lambda _: done.put_nowait(None))
    try:
        while (settled := await done.get()) is not None:
            yield settled
        await run
    finally:
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)


async def _export_all(
    works: dict[TaskKey, list[Work]], ports: Ports, settle: Callable[[tuple[Work, Result]], None]
) -> None:
    gate = asyncio.Semaphore(TASKS_AT_ONCE)
    by_source: dict[str, list[TaskKey]] = defaultdict(list)
    for key in works:
        by_source[key.source].append(key)

    async def source(keys: Sequence[TaskKey]) -> None:
        found = await _read_all(keys, ports)
        answers = await fetch_apart({key: works[key] for key in keys}, ports)
        await together(task(key, found[key], answer) for key, answer in answers.items())

    async def task(key: TaskKey, found: Found | Transient | Permanent, answer: Answer) -> None:
        async with gate:
            for settled in await _settle_task(works[key], found, answer, ports):
                settle(settled)

    await together(source(keys) for keys in by_source.values())


async def _read_all(
    keys: Sequence[TaskKey], ports: Ports
) -> dict[TaskKey, Found | Transient | Permanent]:
    """The pointers, with the outcomes they carry confirmed in ``audit``."""
    gate = asyncio.Semaphore(TASKS_AT_ONCE)

    async def one(key: TaskKey) -> Found | Transient | Permanent:
        async with gate:
            try:
                return await _read(key, ports)
            except (Transient, Permanent) as error:
                return error
            except Exception as error:
                return crash(error)

    found = dict(zip(keys, await together(one(key) for key in keys), strict=True))
    carried = {
        key: one.pointer.outcome
        for key, one in found.items()
        if isinstance(one, Found) and one.pointer
    }
    return {**found, **await _not_told(carried, ports)}


async def _not_told(
    carried: Mapping[TaskKey, Outcome], ports: Ports
) -> dict[TaskKey, Transient | Permanent]:
    """Puts the outcomes that pointers carry; gives the tasks whose outcome could not be put. One
    that no queue can hold stands alone."""
    if not carried:
        return {}
    try:
        await ports.queue.put(list(carried.values()))
    except Transient as error:
        return dict.fromkeys(carried, error)
    except Permanent as error:
        if len(carried) == 1:
            return dict.fromkeys(carried, error)
        alone = [await _not_told({key: outcome}, ports) for key, outcome in carried.items()]
        return {key: failed for one in alone for key, failed in one.items()}
    return {}


async def _read(key: TaskKey, ports: Ports) -> Found:
    place = layout.pointer_key(ports.project_key(key), key.task)
    stored = await ports.store.read(place)
    if stored is None:
        return Found(pointer=None, etag=None)
    try:
        return Found(pointer=decode(stored.data, Pointer), etag=stored.etag)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = f"{place} is no pointer of this version; groundwire verify tells more"
        raise Permanent("pointer-unreadable", said) from error


async def _settle_task(
    works: Sequence[Work], found: Found | Transient | Permanent, answer: Answer, ports: Ports
) -> list[tuple[Work, Result]]:
    """The results of one task's events: one pointer move at most serves them all."""
    try:
        if isinstance(found, Transient | Permanent):
            raise found
        result: Result = await _move_until_won(works, found, answer, ports)
        if isinstance(answer, TaskSnapshot):
            return [(work, _not_showing(work, answer) or result) for work in works]
    except (Transient, Permanent) as error:
        result = error
    except Exception as error:
        result = crash(error)
    return [(work, result) for work in works]


def _not_showing(work: Work, snapshot: TaskSnapshot) -> Transient | None:
    """An answer that does not show the event yet is asked for again, a bounded number of times;
    then it is accepted and left to the sweep."""
    event = work.message
    if not isinstance(event, TaskEvent) or pointers.shows(snapshot, event):
        return None
    if work.attempt > SHOWING_TRIES:
        return None
    return Transient("event-not-showing", "the platform does not show what it announced")


async def _move_until_won(
    works: Sequence[Work], found: Found, answer: Answer, ports: Ports
) -> Outcome | None:
    key = _event(works[0]).key
    for _ in range(RACES):
        if isinstance(answer, Transient | Permanent):
            raise answer
        try:
            return await _move(works, found, answer, ports)
        except Conflict as conflict:
            if conflict.key != layout.pointer_key(ports.project_key(key), key.task):
                raise _damaged(conflict) from conflict
            again = (await _read_all([key], ports))[key]
            if not isinstance(again, Found):
                raise again from None
            found, answer = again, (await fetch([key], ports))[key]
    raise Transient("pointer-contended", f"lost {RACES} races for one pointer")


def _damaged(conflict: Conflict) -> Permanent:
    """What is named by its hash can only hold other bytes when somebody changed them."""
    said = f"{conflict.key} does not hold what its name says; groundwire verify tells more"
    return Permanent("lake-damaged", said)


async def _move(
    works: Sequence[Work], found: Found, answer: TaskSnapshot | Missing, ports: Ports
) -> Outcome | None:
    key = _event(works[0]).key
    caused_by = [_event(work).id for work in works]
    rules = ports.rules[key.source]
    recipe = pointers.recipe_of(rules)
    project = ports.project_key(key)
    old = found.pointer
    if isinstance(answer, Missing):
        _confirm_missing(works, old, Confirmation(ports.clock(), rules.deletion_confirmed_after_s))
        new = pointers.deleted_pointer(
            old,
            key,
            project_key=project,
            recipe=recipe,
            caused_by=caused_by,
            platform=ports.kinds.get(key.source, ""),
        )
    else:
        confirmation = Confirmation(ports.clock(), rules.deletion_confirmed_after_s)
        _confirm_current(works, old, answer, confirmation)
        wanted = rules.wants(answer.stage, ground_truth=answer.ground_truth)
        shown = functools.partial(_shown, old, answer, caused_by, ports)
        written = None
        if wanted and pointers.is_annotated(answer):
            try:
                written = await revisions.write_revision(answer, old, recipe, ports)
            except (Transient, Permanent) as error:
                if not error.reason.startswith("store-"):  # what the lake refuses waits for it
                    await _retract(found, shown(None), ports)
                raise
        new = shown(written)
    if new is None:
        return None
    pointer_key = layout.pointer_key(project, key.task)
    await ports.store.swap(pointer_key, canonical(new), if_match=found.etag)
    return new.outcome


def _shown(
    old: Pointer | None,
    answer: TaskSnapshot,
    caused_by: Sequence[str],
    ports: Ports,
    written: revisions.Written | None,
) -> Pointer | None:
    """The pointer that shows the answer, with what was written of it."""
    rules = ports.rules[answer.source]
    return pointers.next_pointer(
        old,
        answer,
        project_key=ports.project_key(answer.key),
        recipe=pointers.recipe_of(rules),
        images=pointers.images_version(answer, rules),
        paths=rules.paths,
        refused=written.refused if written else (),
        drawn={one.id: pointers.drawn_version(one, rules) for one in answer.labels},
        revision=written.revision if written else None,
        manifest_key=written.manifest_key if written else None,
        new_files=written.new_files if written else False,
        caused_by=caused_by,
        platform=ports.kinds.get(answer.source, ""),
    )


async def _retract(found: Found, new: Pointer | None, ports: Ports) -> None:
    """A task that left the ground truth leaves it at once, though its files cannot be made now:
    its pointer then names none until they are."""
    if new is None or new.ground_truth or not (found.pointer and found.pointer.ground_truth):
        return
    key = layout.pointer_key(new.outcome.move.project_key, new.task)
    try:
        await ports.store.swap(key, canonical(new), if_match=found.etag)
    except Conflict:
        return  # somebody else has moved it meanwhile
    await ports.queue.put([new.outcome])


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Two answers that agree, at least ``wait_s`` apart. The first stands in the failure that the
    event carries; an event that comes back sooner proves nothing."""

    now: datetime
    wait_s: float

    def given(self, works: Sequence[Work], reason: str) -> bool:
        return any(
            work.failure is not None
            and work.failure.reason == reason
            and (self.now - datetime.fromisoformat(work.failure.at)).total_seconds() >= self.wait_s
            for work in works
        )


def _confirm_missing(
    works: Sequence[Work], old: Pointer | None, confirmation: Confirmation
) -> None:
    """Returns when the task may be called gone: a delete event says so, or two answers agree.
    Without a pointer there is nothing to delete: it is buried then, unless the platform itself
    listed it to a sweep."""
    if old is not None and old.change == "deleted":
        return
    actions = {_event(work).action for work in works}
    if "DELETE" in actions:
        return
    if not confirmation.given(works, "task-missing"):
        said = "the platform knows no such task"
        raise Transient("task-missing", said, after_s=confirmation.wait_s)
    if old is None and "SWEEP" not in actions:
        raise Permanent("task-unknown", "the platform knows no such task, asked twice")


def _confirm_current(
    works: Sequence[Work],
    old: Pointer | None,
    snapshot: TaskSnapshot,
    confirmation: Confirmation,
) -> None:
    """Returns when the answer may replace the pointer."""
    if old is None:
        return
    if pointers.is_stale(old, snapshot):
        raise Transient("answer-stale", "the platform's answer is older than what was seen")
    if old.change == "deleted" and not confirmation.given(works, "task-reappeared"):
        said = "a deleted task is there again"
        raise Transient("task-reappeared", said, after_s=confirmation.wait_s)


def _event(work: Work) -> TaskEvent:
    if not isinstance(work.message, TaskEvent):  # the lane takes nothing else
        raise Permanent("not-an-event", "the export lane takes task events only")
    return work.message
