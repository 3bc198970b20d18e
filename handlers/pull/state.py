"""What a pulled folder holds, remembered in ``.groundwire-pull/`` inside it.

``files`` is what was placed; ``pending`` is written before anything is placed, so that after a
crash every file of ours is still known as ours, whichever of the two it is.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from consumer.errors import Permanent
from consumer.model import FORMAT, decode, encode
from handlers.pull.names import checked
from handlers.pull.options import Options
from handlers.pull.select import Facts

HIDDEN = ".groundwire-pull"


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A file of ours. ``origin`` is what it was made of: while that is the same, so are the
    bytes; ``task`` its task's place in the lake."""

    origin: str
    sha256: str
    size: int
    mtime_ns: int
    task: str = ""


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """A task that the index names: its folder, and the manifest that it was."""

    folder: str
    manifest_sha256: str


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``seen`` spares the reading of pointers that have not moved; ``placed`` is by tasks' places
    in the lake. ``snapshot`` is the one that the folder holds; empty, it holds the lake as it is
    at each pull."""

    project: str
    snapshot: str = ""
    lake: str = ""
    endpoint: str = ""
    options: Options = Options()
    seen: list[Facts] = []
    files: dict[str, Held] = {}
    pending: dict[str, Held] = {}
    placed: dict[str, Placed] = {}
    format: int = FORMAT


def load(folder: Path) -> State | None:
    """What was remembered of this project folder; None when nothing was pulled into it. Raises
    ``Permanent`` (``pull-state-unreadable``)."""
    file = _file(folder)
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        state = decode(data, State)
        if state.format != FORMAT:
            raise msgspec.ValidationError("another format")
        for path in (*state.files, *state.pending):
            for part in path.split("/"):
                checked(part)
    except Permanent as error:  # somebody else's folder: what it calls its own may be anything
        said = f"{file} names files outside of its folder: pull into a new DIR"
        raise Permanent("pull-state-unreadable", said) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = f"{file} cannot be read: it is of another version, or damaged; pull into a new DIR"
        raise Permanent("pull-state-unreadable", said) from error
    return state


def save(folder: Path, state: State) -> None:
    """Durable on return; the one before is there until then."""
    write(_file(folder), encode(state))


def write(file: Path, data: bytes) -> None:
    """A file that is complete or absent."""
    temporary = file.with_name(f"{file.name}.new")
    with temporary.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file)


def _file(folder: Path) -> Path:
    return folder / HIDDEN / "state.json"
