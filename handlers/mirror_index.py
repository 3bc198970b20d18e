"""What the mirror shows of each project, as it remembers it in ``followers/mirror/{project}/``.

``index.json`` is what is shown; ``intent.json`` is written before anything is touched and names the
task folders that are about to be. So after a crash what lies otherwise than the index says is known
as ours in those folders, and as an edit by hand anywhere else. Both are swapped: of two mirrors the
one that comes second meets a ``Conflict``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from consumer.errors import Conflict
from consumer.model import FORMAT, decode, encode, timestamp
from consumer.ports import Store
from handlers import layout
from handlers.pull.select import Facts

FOLDER = "followers/mirror/"


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A file that is shown: ``path`` is below the project, ``key`` where its bytes are from,
    ``version`` the copy's own."""

    path: str
    key: str
    sha256: str
    size: int
    version: str


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A task as it is shown. ``has_document``: the index file is to hold its document; ``span`` is
    where (offset and length), None when what is there is not it."""

    source: str
    name: str
    nameless: bool
    sequence: int  # of the pointer that it was made equal to
    folder: str
    manifest: str | None = None
    manifest_sha256: str | None = None
    labels: tuple[str, ...] = ()
    files: tuple[Placed, ...] = ()
    has_document: bool = False
    is_row: bool = False
    span: tuple[int, int] | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True):
    """A task that cannot be shown, since which move of its pointer."""

    sequence: int
    reason: str


class Index(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``index.json``. Of the project's index file: its name, the SHA-256 that it has or is about to
    have, and what it had before that. ``is_stale``: its tasks are no longer those."""

    project: str
    sequence: int = 0  # grows with every swap
    tasks: dict[str, Shown] = {}
    failed: dict[str, Failed] = {}
    file: str = ""
    former: str = ""  # another name, which it had before
    sha256: str = ""
    before: str = ""
    is_stale: bool = False
    flushed_at: str = ""
    quiet: list[str] = []  # folders of an intent that nobody has looked at since
    late: list[str] = []  # where a mirror that was stopped may still do its last, and since when
    late_since: str = ""
    format: int = FORMAT


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """``intent.json``; it counts while the index has not gone beyond ``base``."""

    base: int
    sequence: int
    folders: list[str]
    format: int = FORMAT


def facts_of(project: str, task: str, shown: Shown) -> Facts:
    return Facts(
        place=layout.task_prefix(project, task),
        version="",
        source=shown.source,
        task=task,
        name=shown.name,
        labels=shown.labels,
        manifest=shown.manifest,
        manifest_sha256=shown.manifest_sha256,
        nameless=shown.nameless,
    )


class Memory:
    """One project's index, in memory and in the store. ``quiet`` are the folders where a crash of
    ours may have left something: differences there are nobody's edits. Nor are they in ``late``:
    who had begun something there may not be dead but asleep, and does it when it wakes."""

    def __init__(self, store: Store, project: str) -> None:
        self.project = project
        self.index = Index(project=project)
        self.touched: set[str] = set()  # since the last save
        self.quiet: set[str] = set()
        self.late: set[str] = set()
        self.is_saved = True
        self._store = store
        self._place = f"{FOLDER}{project}/"
        self._etag: str | None = None
        self._intent_etag: str | None = None
        self._intents = 0
        self._covered: set[str] = set()

    @property
    def is_stored(self) -> bool:
        return self.index.sequence > 0

    async def load(self, remembered: Iterable[str], now: datetime) -> None:
        """``remembered`` are folders that this process touched before a failure. An index that
        cannot be read is as one that was lost."""
        intent = await self._read_intent()
        stored = await self._store.read(f"{self._place}index.json")
        if stored is not None:
            self._etag = stored.etag
            try:
                found = decode(stored.data, Index)
            except (msgspec.DecodeError, UnicodeDecodeError):
                found = self.index
            self.index = found if found.format == FORMAT else self.index
        self.quiet = {*remembered, *self.index.quiet}
        if intent is not None and intent.base >= self.index.sequence:
            self._covered = set(intent.folders)
            self.quiet |= self._covered
        self.late = self.quiet.union(self.index.late)
        if self.quiet:
            self.index.late_since = timestamp(now)

    def settled(self) -> None:
        """What a crash may have left has been looked at."""
        self.is_saved = self.is_saved and not self.quiet
        self.quiet = set()

    def all_awake(self, now: datetime, after_s: float) -> None:
        """All has been looked at: who was asleep has woken by now, or will not do so."""
        since = self.index.late_since
        if since and 0 <= (now - datetime.fromisoformat(since)).total_seconds() < after_s:
            return
        self.is_saved = self.is_saved and not self.late
        self.late, self.index.late_since = set(), ""

    async def intend(self, folders: set[str]) -> None:
        """Before anything in these folders is touched. Raises ``Conflict``."""
        self.touched |= folders
        if folders <= self._covered:
            return
        covered = self.touched | self.quiet | folders
        intent = Intent(
            base=self.index.sequence, sequence=self._intents + 1, folders=sorted(covered)
        )
        self._intent_etag = await self._store.swap(
            f"{self._place}intent.json", encode(intent), if_match=self._intent_etag
        )
        self._intents, self._covered = intent.sequence, covered
        self.is_saved = False

    async def check_alone(self) -> None:
        """Raises ``Conflict`` when another mirror has touched anything since this one last did."""
        for name, etag in (("intent", self._intent_etag), ("index", self._etag)):
            stored = await self._store.read(f"{self._place}{name}.json")
            if (stored.etag if stored else None) != etag:
                raise Conflict(f"{self._place}{name}.json")

    async def save(self, now: datetime) -> None:
        """Raises ``Conflict``."""
        self.index.sequence += 1
        self.index.quiet, self.index.late = sorted(self.quiet), sorted(self.late)
        self.index.flushed_at = timestamp(now)
        self._etag = await self._store.swap(
            f"{self._place}index.json", encode(self.index), if_match=self._etag
        )
        self.touched, self._covered = set(), set()
        self.is_saved = True

    async def _read_intent(self) -> Intent | None:
        stored = await self._store.read(f"{self._place}intent.json")
        if stored is None:
            return None
        self._intent_etag = stored.etag
        try:
            intent = decode(stored.data, Intent)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        self._intents = intent.sequence
        return intent


async def known_projects(store: Store) -> list[str]:
    """The projects that a mirror has ever shown."""
    return sorted({item.key.split("/")[2] async for item in store.list(FOLDER)})
