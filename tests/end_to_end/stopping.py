"""How long a process takes to end after SIGTERM."""

from __future__ import annotations

import json
import time
from datetime import datetime

from tests.end_to_end.house import House

STOP_S = 10.0
BUSY_S = (
    10.0  # what a machine may add that has other things to do, before it hears and when it goes
)


async def stopped_in_time(place: House, name: str) -> float:
    """It ends well, within ``STOP_S`` by its own log lines; the seconds until it was gone."""
    began = time.monotonic()
    assert await place.stop(name) == 0, name
    took = time.monotonic() - began
    at = {
        line["event"]: datetime.fromisoformat(line["timestamp"])
        for line in map(json.loads, (place.directory / f"{name}.log").read_text().splitlines())
        if line["event"] in ("stopping", "stopped")
    }
    own = (at["stopped"] - at["stopping"]).total_seconds()
    assert 0 <= own < STOP_S, f"{name} took {own:.1f} s"
    assert took < STOP_S + BUSY_S, f"{name} took {took:.1f} s"
    return took
