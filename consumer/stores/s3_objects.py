"""Images that lie in buckets of their owners, by ``s3://bucket/key``: listed and read, no more.

Invariant: nothing is asked for that does not lie below one of the prefixes that the operator named,
component by component. Whoever writes data rows chooses the references; without this they could
read, through our credentials, whatever these may read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from consumer.errors import Permanent, Refused, Transient
from consumer.stores import pieces
from consumer.stores.pieces import PIECE_BYTES, Piece
from consumer.stores.s3_calls import S3Calls
from consumer.stores.s3_pieces import Place, piece_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

MAX_FILES = 20_000  # of one series
MAX_KEY_BYTES = 1024  # of UTF-8: the limit of S3
SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SETTING = "the image's reference, or `image_prefixes`"


@dataclass(frozen=True, slots=True)
class Reference:
    """``s3://bucket/a/b``: the key's components; ``folder`` when it ends in ``/``."""

    bucket: str
    parts: tuple[str, ...]
    folder: bool

    @classmethod
    def parse(cls, url: str) -> Reference:
        """Raises ``ValueError`` for what is no such URL, or names no plain place."""
        if not url.startswith(SCHEME):
            raise ValueError("it does not begin with s3://")
        bucket, _, key = url.removeprefix(SCHEME).partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("it names no bucket")
        folder = not key or key.endswith("/")
        parts = tuple(key.removesuffix("/").split("/")) if key else ()
        if any(part in ("", ".", "..") for part in parts) or not key.isprintable():
            raise ValueError("its key has an empty component, '.', '..' or what is no text")
        if len(key.encode()) > MAX_KEY_BYTES:
            raise ValueError(f"its key is longer than {MAX_KEY_BYTES} bytes")
        return cls(bucket, parts, folder)

    @property
    def key(self) -> str:
        return "/".join(self.parts) + ("/" if self.folder and self.parts else "")

    def lies_below(self, prefix: Reference) -> bool:
        """By whole components: ``a/bc`` does not lie below ``a/b``."""
        begins = self.parts[: len(prefix.parts)] == prefix.parts
        deeper = len(self.parts) > len(prefix.parts) or self.folder
        return self.bucket == prefix.bucket and begins and deeper


class S3Objects:
    """Implements ``ImageObjects``. ``prefixes`` are ``s3://bucket/prefix``; none: nothing is read.

    Credentials come by boto3's usual chain. Raises ``ValueError`` for a prefix that is none.
    """

    def __init__(
        self,
        prefixes: Sequence[str],
        endpoint: str | None = None,
        *,
        max_files: int = MAX_FILES,
        page_size: int = 1000,
    ) -> None:
        self._allowed = [Reference.parse(prefix) for prefix in prefixes]
        self._calls = S3Calls(endpoint=endpoint)
        self._max_files = max_files
        self._page_size = page_size
        host = urlsplit(endpoint).hostname if endpoint else None
        self._at = f" at {host}" if host else ""

    def close(self) -> None:
        """Takes no further calls."""
        self._calls.close()

    async def list(self, url: str) -> list[tuple[str, int]]:
        folder = self._allowed_reference(url)
        if not folder.folder:
            raise _unreachable("a listing is of an s3 prefix that ends in '/'")
        found: list[tuple[str, int]] = []
        token: str | None = None
        with _one_tasks_own():
            while True:
                page = await self._calls.repeated(partial(self._page, folder, token))
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # folder markers, which consoles make
                        found.append((item["Key"], item["Size"]))
                if len(found) > self._max_files:
                    raise Permanent(
                        "images-too-many", f"over {self._max_files} files in one series"
                    )
                token = page.get("NextContinuationToken")
                if not page.get("IsTruncated") or not token:
                    break
        return [(f"{SCHEME}{folder.bucket}/{key}", size) for key, size in sorted(found)]

    async def save(self, url: str, path: Path, max_bytes: int) -> tuple[str, int]:
        wanted = self._allowed_reference(url)
        if wanted.folder:
            raise _unreachable("an s3 object's key does not end in '/'")
        sizes: list[int] = []

        async def ask(offset: int, tag: str | None) -> Piece | None:
            place = Place(wanted.bucket, wanted.key, self._where(wanted), PIECE_BYTES, _SETTING)
            piece = await self._calls.repeated(partial(piece_of, self._calls, place, offset, tag))
            if piece is not None and piece.size > max_bytes:
                raise Permanent("images-too-large", f"{piece.size} bytes; the limit is {max_bytes}")
            sizes.extend([] if piece is None else [piece.size])
            return piece

        with _one_tasks_own():
            sha256 = await pieces.fetched(path, ask, self._calls.run)
        if sha256 is None:
            raise Transient("images-missing", f"{self._where(wanted)} has no object by that key")
        return sha256, sizes[-1]

    def _allowed_reference(self, url: str) -> Reference:
        try:
            reference = Reference.parse(url)
        except ValueError as error:
            raise _unreachable(f"an s3 reference is not understood: {error}") from None
        if not any(reference.lies_below(prefix) for prefix in self._allowed):
            raise _unreachable("an s3 reference lies below none of the source's image_prefixes")
        return reference

    def _where(self, reference: Reference) -> str:
        return f"bucket {reference.bucket}{self._at}"

    def _page(self, folder: Reference, token: str | None) -> ListObjectsV2OutputTypeDef:
        def call(client: S3Client) -> ListObjectsV2OutputTypeDef:
            page = partial(
                client.list_objects_v2,
                Bucket=folder.bucket,
                Prefix=folder.key,
                MaxKeys=self._page_size,
            )
            return page() if token is None else page(ContinuationToken=token)

        where = self._where(folder)
        return self._calls.asked("ListObjectsV2", call, where=where, setting=_SETTING)


@contextmanager
def _one_tasks_own() -> Iterator[None]:
    """Whoever wrote the row chose the bucket: its failure is not everybody's."""
    try:
        yield
    except Transient as error:
        raise Transient(error.reason, error.message, after_s=error.after_s) from None


def _unreachable(text: str) -> Refused:
    return Refused("images-unreachable", text)
