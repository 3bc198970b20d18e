"""Where the log's objects lie in the store. Pure."""

from __future__ import annotations

import hashlib

from consumer.log.tiles import Tile, grouped

LOG = "log/"
HEAD = "log/head"  # the commit point: swapped once for each batch
CHECKPOINT = "log/checkpoint"  # follows head when the tiles are published
VKEY = "log/vkey"
STAGE = "log/stage/"
IDS = "log/ids/"
TILES = "log/tile/"


def tile_key(tile: Tile) -> str:
    return LOG + tile.path


def stage_key(staged: bytes) -> str:
    return STAGE + hashlib.sha256(staged).hexdigest()


def ids_key(segment: int) -> str:
    return IDS + grouped(segment)
