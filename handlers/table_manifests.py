"""Manifests by the key and hash that the log names, each read once while its task moves on."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from consumer.errors import Permanent
from consumer.model import Manifest, decode, digest
from consumer.ports import Store

KEPT_FILES = 20_000  # that the kept manifests name, all together


class Manifests:
    """A task that moves on mostly keeps its revision: what was asked for last is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[str, Manifest] = OrderedDict()
        self._files = 0

    async def read(self, key: str, sha256: str) -> Manifest | None:
        """None when it is gone: erased, or lost. Raises ``Transient``, and ``Permanent``
        (``manifest-damaged``) when its bytes are not those of the log, or are no manifest."""
        kept = self._kept.get(sha256)
        if kept is not None:
            self._kept.move_to_end(sha256)
            return kept
        stored = await self._store.read(key)
        if stored is None:
            return None
        if digest(stored.data) != sha256:
            raise _damaged(key, "does not have the hash that the log names")
        try:
            manifest = decode(stored.data, Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _damaged(key, "is no manifest of this version") from error
        self._keep(sha256, manifest)
        return manifest

    def _keep(self, sha256: str, manifest: Manifest) -> None:
        if sha256 in self._kept:
            return
        self._kept[sha256] = manifest
        self._files += _weight(manifest)
        while self._files > KEPT_FILES and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._files -= _weight(gone)


def _weight(manifest: Manifest) -> int:
    return 1 + sum(1 + len(file.labels) for file in manifest.files)


def _damaged(key: str, what: str) -> Permanent:
    said = f"{key} {what}: restore it from a copy; groundwire verify tells what else is damaged"
    return Permanent("manifest-damaged", said)
