"""Secrets that are read again when their files change, so that one can be rotated, or revoked,
while Groundwire runs.

A secret by ``env:`` stands as long as the process. One by ``file:`` is read again when it is asked
for ``LOOK_S`` after it was; a file that is gone or empty is no live secret. It is read whether or
not its times have changed: two writes within one tick of the file system's clock look like one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import structlog

from consumer.settings_values import Secret, read_secret_file

LOOK_S = 0.25

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LiveSecret:
    """The current text of one secret; empty while it is revoked. ``learn`` is told each new text,
    so that log lines can be kept free of it."""

    secret: Secret
    learn: Callable[[str], None] = lambda _text: None
    now: Callable[[], float] = time.monotonic
    _text: str = ""
    _looked: float = float("-inf")

    def __post_init__(self) -> None:
        self._text = self.secret.reveal()

    def __call__(self) -> str:
        """Never raises: what cannot be read is no secret."""
        path = self.secret.path
        if path is not None and self.now() - self._looked >= LOOK_S:
            self._looked = self.now()
            self._look(path)
        return self._text

    def _look(self, path: Path) -> None:
        text = _text(path)
        if text != self._text:
            _log.warning("secret changed", reference=self.secret.reference, live=bool(text))
            self._text = text
            if text:
                self.learn(text)


class LiveSecrets(Sequence[bytes]):
    """All live secrets of one source; those that are revoked are left out."""

    def __init__(self, secrets: Sequence[Callable[[], str]]) -> None:
        self._secrets = tuple(secrets)

    def _live(self) -> list[bytes]:
        return [text.encode() for one in self._secrets if (text := one())]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._live())

    def __len__(self) -> int:
        return len(self._live())

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        return self._live()[index]


def _text(path: Path) -> str:
    try:
        text = read_secret_file(path)
    except ValueError:
        return ""
    return text if text.isprintable() else ""
