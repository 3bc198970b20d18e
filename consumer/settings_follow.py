"""The keys of what follows the log: ``[follow]``, ``[mirror]``, ``[relay]``, ``[changes]``,
``[snapshots]``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from consumer.settings_values import Place, QueuePlace, SecretValue, Section


class FollowSection(Section):
    """What is kept up to date from the log."""

    mirror: bool = Field(
        default=True, description="each project as its platform's own export shows it"
    )
    table: bool = Field(default=True, description="the Delta table tables/revisions")
    relay: bool = Field(
        default=False, description="changes of the ground truth on a RabbitMQ exchange"
    )
    poll_s: float = Field(
        default=0.25, ge=0.05, le=60, description="how often another process's log is looked at"
    )


class MirrorSection(Section):
    """The lake as the platforms' own exports show it."""

    interval_s: float = Field(
        default=60.0, ge=0, le=86_400, description="tasks.json is written at most so often"
    )
    check_s: float = Field(
        default=3600.0,
        ge=1,
        le=7 * 86_400,
        description="how often its files are compared with what was written, and put right",
    )


class RelaySection(Section):
    """Changes of the ground truth as CloudEvents."""

    url: QueuePlace | None = Field(
        default=None, description="amqp://user@host/vhost; the queue's own without it"
    )
    password: SecretValue | None = Field(
        default=None, description="env:NAME or file:PATH; of that broker's user"
    )
    exchange: str = Field(
        default="groundwire.changes",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$",
        description="a topic exchange; keys are {platform}.{project}.{added|changed|removed}",
    )
    declare: bool = Field(
        default=True, description="false: the exchange is yours, and only checked"
    )


class ChangesSection(Section):
    """The stream ``GET /changes`` of the admin listener."""

    max_readers: int = Field(default=64, ge=1, le=10_000, description="one more is answered 503")
    heartbeat_s: float = Field(
        default=15.0, gt=0, le=300, description="a silent stream says that it is alive"
    )
    stalled_s: float = Field(
        default=30.0, gt=0, le=600, description="a reader that takes nothing is let go"
    )


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if pattern and groups != 1:
        raise ValueError("needs exactly one group, which is the patient")
    return pattern


Share = Annotated[float, Field(ge=0, le=1)]


class SnapshotSection(Section):
    """How a snapshot parts the tasks."""

    split: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], Share] = Field(
        default={"train": 0.8, "validation": 0.1, "test": 0.1},
        min_length=1,
        max_length=10,
        description="shares that add up to 1",
    )
    key: SecretValue | None = Field(
        default=None,
        description="env:NAME or file:PATH; who has it can tell the parts; the log's origin "
        "without it",
    )
    patient: Annotated[str, AfterValidator(_one_group)] = Field(
        default="",
        max_length=200,
        description="a regular expression on a task's name whose group is the patient; tasks of "
        "one patient stay together; empty: each task for itself",
    )


def relay_place(section: RelaySection, queue: Place) -> Place | None:
    """The broker that the relay publishes to; None when none is named anywhere."""
    if section.url is not None:
        return section.url
    return queue if queue.scheme in ("amqp", "amqps") else None
