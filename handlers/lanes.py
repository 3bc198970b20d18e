"""The lanes that handlers work on. Whoever only puts messages needs no more of a handler."""

from __future__ import annotations

from consumer.model import LaneSpec

EXPORT = LaneSpec(name="export", wants=("event",), batch=64, linger_s=0.02)
AUDIT = LaneSpec(
    name="audit", wants=("event", "outcome", "record"), batch=500, linger_s=0.03, exclusive=True
)
