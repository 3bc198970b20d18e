"""Retraining, composed: policies of the settings, their targets, and the snapshots in between."""

from __future__ import annotations

from consumer.app_adapters import Close
from consumer.app_targets import make_target
from consumer.model import Record, canonical, digest
from consumer.ports import FollowPorts, LogReader, Store
from consumer.settings import Settings
from consumer.settings_retrain import PolicySection
from handlers.retrain import Retrain
from handlers.retrain_policy import Policy
from handlers.retrain_records import Decision
from handlers.retrain_state import Taken
from handlers.retrain_triggers import TakeSnapshot
from handlers.snapshots.create import Wanted, create, record_of


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
