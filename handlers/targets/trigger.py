"""What a target is told when training is to begin, and what it answers.

A trigger is made of a logged decision and its snapshot alone, so the same decision makes the same
trigger, with the same key, however often it is fired.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from handlers.cloud_event import CloudEvent, reference

EVENT_TYPE = "io.groundwire.retrain"

_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Trigger(Struct, frozen=True, kw_only=True):
    """One decision to train, and the snapshot to train on.

    ``key`` is the idempotency key: whoever sees it again has seen this decision before.
    ``log`` is the log's identity, ``log_root`` the root hash (base64) of its first ``log_size``
    entries; ``snapshot`` is the snapshot's id, ``snapshot_key`` the object in the lake that says
    what it consists of, ``snapshot_sha256`` that object's hash. ``added`` and ``changed`` count the
    tasks that are new or other in the ground truth since the decision before. ``decided_at`` is in
    ``timestamp`` form.
    """

    key: str
    policy: str
    decision: int
    reason: str
    decided_at: str
    log: str
    log_size: int
    log_root: str
    snapshot: str
    snapshot_name: str
    snapshot_key: str
    snapshot_sha256: str
    tasks: int
    added: int
    changed: int

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError("a trigger's key has 1 to 64 characters of A-Z a-z 0-9 . _ -")

    def event(self) -> dict[str, Any]:
        """As plain JSON; ``source`` is the log's identity as a reference."""
        plain: dict[str, Any] = msgspec.to_builtins(self._event)
        return plain

    def body(self) -> bytes:
        """The CloudEvent's JSON: the same bytes each time."""
        return self._event.body()

    @property
    def _event(self) -> CloudEvent:
        return CloudEvent(
            id=self.key,
            source=reference(self.log),
            type=EVENT_TYPE,
            subject=self.policy,
            time=self.decided_at,
            data={
                "format": 1,
                "key": self.key,
                "policy": self.policy,
                "decision": self.decision,
                "reason": self.reason,
                "decided_at": self.decided_at,
                "log": {"identity": self.log, "size": self.log_size, "root": self.log_root},
                "snapshot": {
                    "id": self.snapshot,
                    "name": self.snapshot_name,
                    "key": self.snapshot_key,
                    "sha256": self.snapshot_sha256,
                },
                "tasks": self.tasks,
                "added": self.added,
                "changed": self.changed,
            },
        )

    def fields(self) -> dict[str, str]:
        """What templates may name, as text: ``consumer.settings_retrain.TEMPLATE_NAMES``."""
        return {
            "key": self.key,
            "policy": self.policy,
            "decision": str(self.decision),
            "origin": self.log,
            "log_size": str(self.log_size),
            "log_root": self.log_root,
            "snapshot": self.snapshot,
            "snapshot_name": self.snapshot_name,
            "snapshot_key": self.snapshot_key,
            "snapshot_sha256": self.snapshot_sha256,
            "tasks": str(self.tasks),
            "added": str(self.added),
            "changed": str(self.changed),
            "reason": self.reason,
            "decided_at": self.decided_at,
            "event": self.body().decode(),
        }


class Fired(Struct, frozen=True):
    """The target has begun. ``reference`` is what it calls the run (empty where it says nothing);
    ``already`` says that it had begun with this key before."""

    reference: str = ""
    already: bool = False


class Target(Protocol):
    """What is started. It may be told the same trigger again and again, also by two processes at
    once, and after it has begun: it is given the key so that it begins once."""

    async def fire(self, trigger: Trigger) -> Fired:
        """Returns once the target has taken the trigger. Raises ``Transient`` (try again, not
        before ``after_s``) or ``Permanent`` (a person must mend something first); within the
        target's own time limit, and what a command needs to end. Cancelling it ends it."""
