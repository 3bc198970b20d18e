"""What retraining says in the log, and what it reads there again: decisions and triggers.

Decision n of a policy is the first one logged: an entry's id is made of policy and number, and the
log drops ids that it knows. All that is acted on is what was read back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from consumer.errors import Permanent
from consumer.model import Record, digest, identifier
from handlers.retrain_policy import Pending, Policy

DECIDED, TRIGGERED, FAILED = "decided", "triggered", "failed"

_PLAIN = re.compile(r"[A-Za-z0-9._:/+=~-]{1,200}", re.ASCII)
_SLUG = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)


class Decision(Struct, frozen=True, kw_only=True):
    """A decision as the log holds it. ``log_size`` fixes the ground truth that is trained on;
    ``projects`` and ``classes`` are the policy's when it was made; ``decided_at`` is when it was
    logged. ``who``: a person fired by hand, and ``nonce`` tells his decision from any other."""

    policy: str
    decision: int
    log_size: int
    reason: str
    tasks: int
    added: int
    changed: int
    decided_at: str = ""
    dry_run: bool = False
    projects: tuple[str, ...] = ("*",)
    classes: tuple[str, ...] = ()
    configuration: str = ""
    who: str | None = None
    reason_note: str | None = None
    nonce: str | None = None

    def __post_init__(self) -> None:
        if self.decision < 1 or self.log_size < 0:
            raise ValueError("decisions are counted from 1, and no log is shorter than empty")

    @property
    def id(self) -> str:
        return f"{self.policy}:{self.decision}"


def decision_for(
    policy: Policy, number: int, pending: Pending, size: int, reason: str, **by_hand: str
) -> Decision:
    return Decision(
        policy=policy.name,
        decision=number,
        log_size=size,
        reason=reason,
        tasks=pending.tasks,
        added=pending.added,
        changed=pending.changed,
        dry_run=policy.dry_run,
        projects=policy.projects,
        classes=policy.classes,
        configuration=policy.configuration,
        **by_hand,
    )


def decided(decision: Decision) -> Record:
    """What is put so that the log decides which decision of this number is the one."""
    told: dict[str, Any] = msgspec.to_builtins(decision)
    fields = {k: v for k, v in told.items() if v is not None and k != "decided_at"}
    return Record(id=decision.id, kind=DECIDED, fields=fields)


def read_decision(index: int, entry: Mapping[str, Any]) -> Decision:
    """Raises ``Permanent`` (``decision-unreadable``)."""
    try:
        found = msgspec.convert({**entry, "decided_at": entry.get("logged_at")}, Decision)
    except msgspec.ValidationError as error:
        said = f"entry {index} of the log is no decision of this version"
        raise Permanent("decision-unreadable", said) from error
    return msgspec.structs.replace(found, log_size=min(found.log_size, index))


def idempotency_key(log: str, policy: str, number: int) -> str:
    """The same for ever for decision ``number`` of ``policy`` in the log with this identity, and
    for nothing else; at most 64 characters that every target takes."""
    return f"{policy[:20]}-{number}-{identifier('retrain', log, policy, str(number))}"


def triggered(
    decision: Decision, *, key: str, target: str, snapshot: str, reference: str, already: bool
) -> Record:
    """The end of a decision. A target's reference that is no plain id stands there by its hash."""
    plain = not reference or _PLAIN.fullmatch(reference) is not None
    fields = {
        "policy": decision.policy,
        "decision": decision.decision,
        "key": key,
        "target": target,
        "snapshot": snapshot,
        "already": already,
        **({"reference": reference} if plain else {"reference_sha256": _hash(reference)}),
    }
    return Record(id=decision.id, kind=TRIGGERED, fields=fields)


def failed(decision: Decision, *, key: str, target: str, reason: str) -> Record:
    """Said once for each reason."""
    fields = {
        "policy": decision.policy,
        "decision": decision.decision,
        "key": key,
        "target": target,
        "reason": reason,
    }
    return Record(id=f"trigger:{decision.id}:{reason}", kind=FAILED, fields=fields)


def slug(reason: str) -> str:
    """A reason as entries and metrics hold it."""
    return reason if _SLUG.fullmatch(reason) else "target-failed"


def _hash(text: str) -> str:
    return digest(text.encode("utf-8", "surrogatepass"))
