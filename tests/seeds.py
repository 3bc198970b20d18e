"""The seeds of the fault tests: 20 in every run, hundreds with `make chaos`.

``GROUNDWIRE_SEEDS`` says how many, ``GROUNDWIRE_FIRST_SEED`` where they begin; a failing test names
its seed, which repeats it alone.
"""

from __future__ import annotations

import os

SEEDS = 20
WANTED = int(os.environ.get("GROUNDWIRE_SEEDS", str(SEEDS)))
THOROUGH = WANTED > SEEDS  # with `make chaos`: every combination, and larger crowds


def seeds(share: float = 1.0) -> range:
    """The seeds of one test. A test that costs much takes a ``share`` of them, at least one."""
    first = int(os.environ.get("GROUNDWIRE_FIRST_SEED", "0"))
    return range(first, first + max(1, round(WANTED * share)))
