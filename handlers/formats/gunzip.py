"""Reading gzip by as many bytes as are wanted: nothing unpacks further than it was asked to.

A short read happens only where every member ended whole, with its checksum right, and nothing
follows the last one.
"""

from __future__ import annotations

from isal import igzip_lib

from consumer.errors import Permanent, Transient

MAGIC = b"\x1f\x8b"
MAX_MEMBERS = 100_000  # 64 KiB blocks, as bgzip writes them, reach 6 GiB

_FEED = 64 * 1024


class Gunzip:
    """The content of one or more gzip members (RFC 1952, section 2.2), one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0
        self._members = 0
        self._member = self._start_member()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the last member.

        Raises ``Transient`` when the data is cut off or damaged, as a torn download is, and
        ``Permanent`` when something that is not gzip follows a member.
        """
        pieces: list[bytes] = []
        while size:
            if self._member.eof and not self._next_member():
                break
            piece = self._inflate(size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _inflate(self, size: int) -> bytes:
        feed = memoryview(b"")
        if self._member.needs_input:
            feed = self._data[self._position : self._position + _FEED]
            if not feed:
                raise Transient("mask-truncated", "the gzip data ends before its end")
            self._position += len(feed)
        try:
            return bytes(self._member.decompress(feed, size))
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # isal's stub forgot its base
            raise Transient("mask-damaged", "the gzip data is damaged") from error

    def _next_member(self) -> bool:
        self._position -= len(self._member.unused_data)
        rest = self._data[self._position : self._position + len(MAGIC)]
        if not rest:
            return False
        if rest != MAGIC:
            raise Permanent("mask-trailing-bytes", "something that is not gzip follows the gzip")
        self._member = self._start_member()
        return True

    def _start_member(self) -> igzip_lib.IgzipDecompressor:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Permanent("mask-too-large", f"more than {MAX_MEMBERS} gzip members")
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
