"""Files for the suites of the store's port, and what is looked at afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from consumer.ports import Store
from tests.servers_s3 import S3Server

MIB = 1 << 20
PART = 5 * MIB  # the least that S3 takes
PIECE = 64 << 10
IN_PARTS = 2 * PART + 17  # three parts


def bytes_of(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat, so that no piece can stand for another."""
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size)


def file_of(folder: Path, data: bytes, name: str = "image.dcm") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


async def data_of(store: Store, key: str) -> bytes | None:
    found = await store.read(key)
    return found.data if found else None


async def keys_of(store: Store) -> list[str]:
    return [item.key async for item in store.list("")]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.0005)


def pending(server: S3Server) -> list[str]:
    """Keys of uploads that nobody ended."""
    found = server.client().list_multipart_uploads(Bucket=server.bucket)
    return [one["Key"] for one in found.get("Uploads", [])]
