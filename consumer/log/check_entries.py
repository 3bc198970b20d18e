"""What every entry of a log must be, whatever its hashes say; and the saved copies of the index."""

from __future__ import annotations

from collections.abc import Sequence

from consumer.errors import GroundwireError
from consumer.log.finding import Findings
from consumer.log.index import IdIndex, id_digest
from consumer.log.keys import ids_key
from consumer.log.merkle import combine
from consumer.log.read import parse_entry
from consumer.log.segment import SEGMENT, encode_segment
from consumer.log.tiles import WIDTH
from consumer.model import FORMAT
from consumer.ports import LogEntry, Store


class EntryRules:
    """Format, ids that never repeat, times that never go back. Entries come in order."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._seen = IdIndex(None)  # a temporary file: memory stays bounded
        self._count = 0
        self._newest = ""

    def check(self, place: str, first: int, raw: Sequence[bytes]) -> list[LogEntry]:
        """The entries of one bundle that can be read, with whatever is wrong with them told."""
        entries = []
        for index, data in enumerate(raw, first):
            try:
                entry = parse_entry(index, data)
            except GroundwireError:
                self._findings.add(place, "it is no JSON object", entry=index)
                continue
            if self._well_formed(place, index, entry):
                entries.append(LogEntry(index, entry))
        self._never_twice(place, entries)
        return entries

    def close(self) -> None:
        self._seen.close()

    def _well_formed(self, place: str, index: int, entry: dict[str, object]) -> bool:
        texts = [entry.get(name) for name in ("id", "kind", "logged_at")]
        if entry.get("format") != FORMAT or not all(isinstance(text, str) for text in texts):
            self._findings.add(place, "it lacks format, id, kind or logged_at", entry=index)
            return False
        logged_at = str(entry["logged_at"])
        if logged_at < self._newest:
            problem = f"logged_at {logged_at} is before the one of an earlier entry"
            self._findings.add(place, problem, entry=index)
        self._newest = max(self._newest, logged_at)
        return True

    def _never_twice(self, place: str, entries: Sequence[LogEntry]) -> None:
        ids = [str(entry.data["id"]) for entry in entries]
        known = self._seen.known(ids)
        for entry, entry_id in zip(entries, ids, strict=True):
            if entry_id in known:
                self._findings.add(place, f"the id {entry_id} is logged twice", entry=entry.index)
            known.add(entry_id)
        self._seen.extend(self._count, [id_digest(one) for one in ids], b"")
        self._count += len(ids)


class SegmentCheck:
    """Compares ``log/ids/<N>`` with the entries that they are a function of."""

    def __init__(self, store: Store, findings: Findings) -> None:
        self._store = store
        self._findings = findings
        self._ids: list[str] = []
        self._roots: list[bytes] = []

    async def add(self, number: int, entries: Sequence[LogEntry], leaves: Sequence[bytes]) -> None:
        """One bundle's entries and hashes, in order."""
        if len(leaves) < WIDTH:
            return
        self._ids += [str(entry.data["id"]) for entry in entries]
        self._roots.append(combine(leaves))
        if (number + 1) % (SEGMENT // WIDTH) == 0:
            await self._compare((number + 1) * WIDTH // SEGMENT - 1)
            self._ids, self._roots = [], []

    async def _compare(self, segment: int) -> None:
        stored = await self._store.read(ids_key(segment))
        digests = [id_digest(entry_id) for entry_id in self._ids]
        if stored and stored.data != encode_segment(segment, combine(self._roots), digests):
            self._findings.add(ids_key(segment), "it does not hold the ids of its entries")
