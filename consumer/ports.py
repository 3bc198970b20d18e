"""The ports: what the inside asks of the outside, each a contract of few verbs.

Everything may be called again after a crash, so every verb says what a repeat does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from consumer.errors import Permanent, Transient
from consumer.model import (
    DeadLetter,
    Delivery,
    ExportRules,
    Failure,
    LaneSpec,
    Mask,
    Message,
    Missing,
    Outcome,
    Series,
    TaskEvent,
    TaskKey,
    TaskSnapshot,
)
from consumer.sightings import Page, Window

Clock = Callable[[], datetime]


class Platform(Protocol):
    """One source: an annotation platform's account."""

    source: str

    def verify(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Delivery:
        """Proof that the platform sent this; no I/O. Header names come in lower case.

        Raises ``Rejected`` (401) for a missing, wrong, malformed or non-ASCII signature or token,
        comparing in constant time over the raw bytes, before anything is parsed.
        """

    def parse(self, delivery: Delivery) -> list[TaskEvent]:
        """The task events of a delivery; no I/O. Empty when it is not about tasks, or only about
        projects that the source does not allow.

        Raises ``Rejected`` (422, with a short reason) for a body that cannot be understood.
        """

    async def fetch(
        self, tasks: Sequence[TaskKey]
    ) -> dict[TaskKey, TaskSnapshot | Missing | Transient | Permanent]:
        """The tasks as the platform holds them now: one answer for each.

        ``Missing`` only when the project can be read. A task's own failure is its value; a
        failure of the whole request (``Transient`` with ``shared`` set, for credentials, rate
        limits and outages; or one caused by an unknown task of the group) is raised.
        Never an empty result for an error.
        """

    async def download(self, snapshot: TaskSnapshot, mask: Mask) -> bytes:
        """The mask's bytes as the platform stores them, complete and within limits.

        Raises ``Transient`` or ``Permanent``.
        """

    async def save_images(
        self, snapshot: TaskSnapshot, series: Series, folder: Path
    ) -> list[SavedImage]:
        """The series' images as files in ``folder``, in viewing order, complete and within limits;
        they are streamed to disk and hashed on the way. One reference may give several (a
        prefix, an archive).

        Raises ``Transient``, or ``Permanent``; ``Refused`` when it knows no way to fetch them.
        """


class Sightings(Protocol):
    """What a sweep asks of a platform; its adapter implements it beside ``Platform``."""

    source: str

    async def now(self) -> str:
        """The platform's time by its own clock, as `timestamp`; asked for anew, at most a second
        late. Raises ``Transient``."""

    def changed_since(self, project: str, window: Window) -> AsyncIterator[Page]:
        """The project's tasks that may be within ``window``, page by page, each as it stands now
        without its labels; with an open window all that there are. One that changes meanwhile
        may be told twice, or as it was; one that stays is never left out.

        Raises ``Transient`` or ``Permanent``, also in the middle: an error never looks like fewer
        tasks.
        """


class Work(Protocol):
    """A leased message, as a handler sees it."""

    @property
    def message(self) -> Message: ...

    @property
    def attempt(self) -> int:
        """1 at the first try."""

    @property
    def failure(self) -> Failure | None:
        """Why the try before this one failed."""


ALONE_AFTER = 2


class Lease(Work, Protocol):
    """A message that is ours until one verb is called, once. A verb on a lease that was lost
    (time, connection) does nothing: the message is, or will be, somebody else's."""

    @property
    def losses(self) -> int:
        """How often it was handed out and lost with the process that had it, since its last verb,
        as far as the queue can tell. From `ALONE_AFTER` on it comes in a batch of its own, and
        only what is lost while it is handled so counts as another."""

    async def ack(self) -> None:
        """It is done: remove it."""

    async def retry(self, after_s: float, failure: Failure, *, counted: bool = True) -> None:
        """Deliver it again, not before ``after_s`` seconds; ``counted`` is whether this was an
        attempt of its own, or one that failed for reasons which all share."""

    async def bury(self, failure: Failure) -> None:
        """Give it up: it goes to the lane's dead letters, durable before it leaves the lane."""


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """How a lane stands; ``oldest_s`` is the age of its oldest message as far as known."""

    ready: int
    leased: int
    waiting: int  # for their next try
    dead: int
    oldest_s: float


class Queue(Protocol):
    """Lanes with their retries and dead letters. At least once.

    It is made with the lanes it serves and is ready after ``open``.
    """

    async def open(self) -> None:
        """Connects and declares (or checks) what it needs. Raises ``Transient`` when it cannot
        be reached, ``Permanent`` when it must be mended by a person."""

    async def close(self) -> None:
        """Gives back what is leased and disconnects."""

    async def ready(self) -> None:
        """Returns when a ``put`` would be kept: reachable, and every lane is there. Raises
        ``Transient`` with the reason otherwise."""

    async def put(self, messages: Sequence[Message]) -> None:
        """Returns when every message is durable in every lane that takes it.

        Raises ``Transient`` within its deadline (5 s) otherwise; some may then be in, so a
        repeated put can duplicate, and consumers drop ids they know.
        """

    async def take(self, lane: LaneSpec) -> Sequence[Lease]:
        """Waits for at least one message, then at most ``linger_s`` for up to ``batch``.

        May be called while earlier leases are open. Cancelling it loses nothing.
        """

    async def depth(self, lane: LaneSpec) -> LaneDepth:
        """The lane's numbers, for metrics. Raises ``Transient``."""


class DeadLetters(Protocol):
    """A lane's dead letters; a queue adapter implements it beside ``Queue``."""

    async def dead(self, lane: LaneSpec, *, limit: int) -> list[DeadLetter]:
        """The oldest ``limit`` dead letters, which stay where they are."""

    async def replay(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        """Puts it back into its lane with its attempts forgotten, then removes it here.
        None when there is no such dead letter."""

    async def drop(self, lane: LaneSpec, message_id: str) -> DeadLetter | None:
        """Removes it for ever. None when there is no such dead letter."""


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image on this machine's disk; ``name`` is the last part of where it came from."""

    name: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's bytes and the tag that a swap must match."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it. ``version`` is another whenever the object's bytes are;
    empty where a listing does not tell."""

    key: str
    size: int
    modified: datetime
    version: str = ""


class Store(Protocol):
    """The lake: keys are ``/``-separated, made by ``handlers.layout`` or ``consumer.log`` only.

    Durable on return. Every verb raises ``Transient`` when the store fails, is slow, or waits for a
    person (no bucket, denied), and may be called again; ``Permanent`` is for what can never work (a
    key that is too long).
    """

    async def read(self, key: str) -> Stored | None:
        """The object, or None when there is none; never an older one than a finished write."""

    async def create(self, key: str, data: bytes) -> None:
        """Once: equal bytes again succeed, other bytes raise ``Conflict``. Never half-written."""

    async def swap(self, key: str, data: bytes, *, if_match: str | None) -> str:
        """Atomically replaces the object tagged ``if_match`` (None: there must be none), returns
        the new tag; ``Conflict`` when another writer was first. A response that was lost after
        success counts as success, so ``data`` must never recur under one key: give it a sequence.
        """

    async def upload(self, key: str, file: Path) -> None:
        """``create`` from a local file of any size, never whole in memory: once, equal bytes again
        succeed, other bytes raise ``Conflict``, and no reader sees a part of it."""

    async def download(self, key: str, file: Path) -> str | None:
        """The object into a local file, which it replaces when complete, never whole in memory;
        the SHA-256 of its bytes, or None when there is no such object."""

    def list(self, prefix: str) -> AsyncIterator[Listed]:
        """All objects under a prefix that ends in ``/`` (or is empty), each once; in order of their
        keys within a folder, but servers differ in the order of folders and files."""

    async def copy(self, source: str, target: str) -> str | None:
        """The object under another name, in one step and without its bytes passing through here;
        whatever was there is replaced. Returns ``version``, as a listing will show it, or None when
        there is no such source. Only for what is made to be overwritten: copies that the mirror
        shows."""

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is fine. Only for what nothing refers to."""


class ImageObjects(Protocol):
    """Images in a bucket, by ``s3://bucket/key``, which a platform's data refer to.

    Whoever writes such data chooses the references, and the credentials are ours: so only what
    lies below the prefixes that the operator named is looked at; ``Refused`` otherwise. Raises
    ``Transient``, and ``Permanent`` beyond a limit.
    """

    async def list(self, url: str) -> list[tuple[str, int]]:
        """What lies below a URL that ends in ``/``, at any depth: URLs and sizes in bytes, sorted
        by key."""

    async def save(self, url: str, path: Path, max_bytes: int) -> tuple[str, int]:
        """One object into a file, complete, never whole in memory; its SHA-256 and its size."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry at its place in the log."""

    index: int
    data: dict[str, Any]


class Log(Protocol):
    """The append-only audit log."""

    async def append(self, entries: Sequence[Mapping[str, Any]]) -> int:
        """Appends those whose ``id`` the log does not hold yet, in order, and returns the log's
        size; they are published and signed on return. Each entry has ``id`` and ``kind``; the log
        adds ``logged_at``. Raises ``Transient`` or ``Permanent``; may be called again."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a handler is given."""

    platforms: Mapping[str, Platform]
    queue: Queue
    store: Store
    log: Log
    rules: Mapping[str, ExportRules]
    project_key: Callable[[TaskKey], str]  # the project's name in the lake
    clock: Clock
    email_key: bytes = b""  # with which e-mails are hashed, where rules say so
    kinds: Mapping[str, str] = field(default_factory=dict)  # which platform each source is


class LogReader(Protocol):
    """The published log, read by its followers; it never shows an entry before it is durable.

    Every verb raises ``Transient`` as the store does, and ``Permanent`` for a damaged log.
    """

    async def identity(self) -> str:
        """What tells this log from every other: its origin, and the mark of its first entry, so
        that a log begun anew under one origin is another. Empty while there is no entry."""

    async def size(self) -> int:
        """How many entries are published."""

    async def wait(self, beyond: int, timeout_s: float) -> int:
        """The size as soon as it is over ``beyond``, or after the timeout."""

    async def read(self, start: int, end: int) -> Sequence[LogEntry]:
        """The entries ``start <= index < end``, as many as are published."""

    async def root(self, size: int) -> str:
        """The root hash (base64, as in a checkpoint) of the first ``size`` entries."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is new for a follower: the ``entries`` of its kinds with indices in
    ``start <= index < end``; ``size`` is how long the log was known to be."""

    entries: Sequence[LogEntry]
    start: int
    end: int
    size: int

    @property
    def caught_up(self) -> bool:
        return self.end >= self.size


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a follower's effects are durable: all entries before ``next``. ``state`` is the
    follower's own, plain JSON."""

    next: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What a follower made of a batch. ``wake_s``: it wants to be called again after so many
    seconds, even if the log does not grow. ``troubles``: reasons of what it cannot do at present
    and tries again, though it goes on; a person sees them."""

    cursor: Cursor
    wake_s: float | None = None
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FollowPorts:
    """What a follower is made with."""

    store: Store
    queue: Queue  # for what it has to say in the log: it puts records
    log: LogReader
    clock: Clock


class Follower(Protocol):
    """What is kept up to date from the log. The loop owns the cursor: it is stored after ``follow``
    returned, so whatever was done for a batch may be done again after a crash, and must come out
    the same. ``cursor.next`` may lag behind what was given (effects that wait to be durable): a
    restart begins there again.
    """

    @property
    def name(self) -> str: ...

    @property
    def kinds(self) -> frozenset[str]:
        """Which kinds of entries it wants."""

    async def start(self, cursor: Cursor) -> Cursor:
        """Called with the stored cursor before the first batch, and again after any failure;
        returns where to begin (its own sink may know better), with nothing assumed of before."""

    async def follow(self, batch: Batch) -> Step:
        """Takes in one batch; called with an empty one to wake. Raises ``Transient`` and
        ``Permanent``: then it is started again from the stored cursor."""


Result = Outcome | Transient | Permanent | None  # None: done, nothing in the lake changed


class Handler(Protocol):
    """A module with ``LANE`` and ``handle``."""

    LANE: LaneSpec

    def handle(self, batch: Sequence[Work], ports: Ports) -> AsyncIterator[tuple[Work, Result]]:
        """One result for each work of the batch, given as soon as it is known, in any order: one
        event's failure or delay is its own. Whatever has no result when the iterator ends or
        raises is tried again."""


Sleep = Callable[[float], Awaitable[None]]
