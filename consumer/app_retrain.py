"""Retraining, composed: policies of the settings, their targets, and the snapshots in between; and
what a person asks and does."""

from __future__ import annotations

import secrets

from consumer.app_adapters import Close, make_store, now
from consumer.app_targets import make_target
from consumer.dead import Person, keep_reason, whoami
from consumer.follow import read_cursor
from consumer.log.tail import LogTail
from consumer.model import Record, canonical, digest
from consumer.ports import Cursor, FollowPorts, LogReader, Queue, Store
from consumer.settings import Settings
from consumer.settings_retrain import PolicySection
from handlers import layout, retrain_by_hand, retrain_reading
from handlers.retrain import Retrain
from handlers.retrain_policy import Decide, Policy
from handlers.retrain_reading import Overview, Standing, Told
from handlers.retrain_records import Decision
from handlers.retrain_state import Open, Taken
from handlers.retrain_triggers import TakeSnapshot
from handlers.snapshots.create import Wanted, create, record_of

__all__ = [
    "Decide", "Decision", "Open", "Overview", "Standing", "Told", "decisions", "fire",
    "make_retrain", "overview", "policies", "policy_of", "taking",
]  # fmt: skip


def make_retrain(settings: Settings, ports: FollowPorts, closing: list[Close]) -> Retrain:
    """The follower; what ends its targets and what is under way is added to ``closing``."""
    targets = {
        name: make_target(section.target, closing, key=f"retrain.{name}.target")
        for name, section in settings.retrain.items()
    }
    made = Retrain(
        policies(settings),
        targets,
        ports=ports,
        snapshot=taking(settings, ports.store, ports.log),
    )
    closing.append(made.close)
    return made


def policies(settings: Settings) -> list[Policy]:
    return [policy_of(name, section) for name, section in settings.retrain.items()]


def policy_of(name: str, section: PolicySection) -> Policy:
    """Secrets are part of its hash by reference only."""
    return Policy(
        name=name,
        projects=section.projects,
        classes=section.classes,
        min_changes=section.min_changes,
        quiet_s=section.quiet,
        max_wait_s=section.max_wait,
        dry_run=section.dry_run,
        timeout_s=section.target.timeout_s,
        target=section.target.type,
        configuration=digest(canonical(section.model_dump(mode="json"))),
    )


def taking(settings: Settings, store: Store, log: LogReader) -> TakeSnapshot:
    """How the snapshot of a decision is taken: of the decision's projects and classes at its size,
    parted as ``[snapshots]`` says."""
    section = settings.snapshots
    key = section.key.reveal().encode() if section.key else b""

    async def take(decision: Decision) -> tuple[Taken, Record]:
        wanted = Wanted(
            name=decision.policy,
            size=decision.log_size,
            projects=decision.projects,
            classes=decision.classes,
            split=section.split,
            key=key,
            patient=section.patient,
            absent_ok=True,
        )
        made = await create(wanted, store=store, log=log)
        taken = Taken(
            id=made.id,
            name=made.name,
            key=made.key,
            sha256=made.sha256,
            log_root=made.root,
            tasks=made.tasks,
        )
        return taken, record_of(made)

    return take


async def decisions(settings: Settings) -> list[Told]:
    """Every decision in the lake's log."""
    return await retrain_reading.decisions(LogTail(make_store(settings)))


async def overview(settings: Settings) -> Overview:
    """How the configured policies stand."""
    store = make_store(settings)
    log = LogTail(store)
    stored, _ = await read_cursor(store, Retrain.name)
    identity = await log.identity()
    # A state of another log says nothing; the follower itself says that it will not go on.
    known = stored is not None and stored.log == identity and stored.next <= await log.size()
    cursor = Cursor(stored.next, stored.state) if stored and known else None
    return await retrain_reading.overview(
        policies(settings), cursor, log=log, store=store, now=now()
    )


async def fire(
    settings: Settings, queue: Queue, name: str, *, by: str | None, reason: str, within_s: float
) -> Decision:
    """A person decides for a policy that is configured; returned when the log holds it. Raises
    ``Transient`` and ``Permanent``."""
    store = make_store(settings)
    log = LogTail(store, poll_s=settings.follow.poll_s)
    policy = policy_of(name, settings.retrain[name])
    await retrain_by_hand.check(policy, store=store, log=log)
    person = Person(by or whoami(), reason)
    note = await keep_reason(person, store, layout.note_key)
    hand = retrain_by_hand.Hand(person.name, note, secrets.token_hex(16))
    return await retrain_by_hand.fire(
        policy, hand, queue=queue, store=store, log=log, within_s=within_s
    )
