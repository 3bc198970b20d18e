"""Every key of ``groundwire.toml``: its type, its default and what it is for.

An unknown key is a mistake, so nothing is configured that nothing reads.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from consumer.settings_export import ClassTable, ExportOverride, ViewSection
from consumer.settings_values import (
    Address,
    AddressValue,
    HttpUrl,
    Names,
    Network,
    SecretValue,
    Section,
    split_names,
)


class Http(Section):
    """The hook listener."""

    listen: AddressValue = Field(
        default=Address("127.0.0.1", 8080),
        description="where the webhooks arrive: POST /hooks/NAME",
    )
    body_limit_bytes: int = Field(
        default=1 << 20, ge=1, le=1 << 26, description="a larger body is answered 413"
    )
    header_timeout_s: float = Field(
        default=10.0, gt=0, le=300, description="a connection that asks nothing by then is closed"
    )
    body_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="a body that is not complete by then is answered 408",
    )
    max_connections: int = Field(
        default=4000,
        ge=10,
        le=1_000_000,
        description="open at once; beyond them the one that has idled longest is closed",
    )
    failures_per_address: int = Field(
        default=60,
        ge=1,
        description="refused requests a minute; more from an address that sent no good one: 429",
    )
    failures_per_source: int = Field(
        default=6000, ge=1, description="the same for all such addresses of one source together"
    )
    replay_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="an event that was queued so lately is not queued again",
    )
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(split_names)] = Field(
        default=(), description="addresses and networks whose X-Forwarded-For counts"
    )


class Admin(Section):
    """The admin listener."""

    listen: AddressValue = Field(
        default=Address("127.0.0.1", 9090), description="/healthz, /readyz and /metrics"
    )
    token: SecretValue | None = Field(
        default=None, description="env:NAME or file:PATH; needed when it listens off loopback"
    )


class LabelboxExportParams(Section):
    """What ``annotations.json`` holds of a data row, by the names of Labelbox' own export."""

    attachments: bool = Field(default=True, description="the data row's attachments")
    metadata_fields: bool = Field(default=True, description="its metadata")
    data_row_details: bool = Field(default=True, description="its times and who made it")
    project_details: bool = Field(default=True, description="ontology, batch, priority")
    label_details: bool = Field(default=True, description="who labelled and reviewed, and when")
    performance_details: bool = Field(default=True, description="the seconds that labelling took")


class SourceSection(Section):
    """One account of one platform."""

    secrets: Annotated[tuple[SecretValue, ...], BeforeValidator(split_names)] = Field(
        min_length=1, description="env:NAME or file:PATH; all that are live, so rotation overlaps"
    )
    api_key: SecretValue = Field(description="env:NAME or file:PATH; with it the state is fetched")
    projects: Names = Field(
        default=("*",),
        min_length=1,
        description='project ids whose webhooks count; "*" is every project',
    )
    download_hosts: Names = Field(
        default=(), description="the only hosts that masks may be fetched from; empty is any"
    )
    private_networks: Annotated[tuple[Network, ...], BeforeValidator(split_names)] = Field(
        default=(),
        description="networks that are not public and may be fetched from, such as 10.1.0.0/16",
    )
    image_prefixes: Names = Field(
        default=(),
        description="s3://bucket/prefix; only below these are s3 images read; empty is nowhere",
    )
    classes: ClassTable | None = Field(default=None, description="instead of [classes]")
    export: ExportOverride = Field(default=ExportOverride(), description="overrides [export]")


class LabelboxSource(SourceSection):
    platform: Literal["labelbox"]
    api_url: HttpUrl = Field(
        default="https://api.labelbox.com/graphql", description="the platform's GraphQL address"
    )
    images: str = Field(
        default="",
        max_length=1000,
        description="where a series lies if not at row_data: s3://bucket/{task}/ or with {name}",
    )
    views: dict[Literal["Axial", "Sagittal", "Coronal"], ViewSection] = Field(
        default={},
        description="how each group's frames lie in the volume (groundwire calibrate finds it)",
    )
    export_params: LabelboxExportParams = Field(
        default=LabelboxExportParams(), description="what annotations.json holds"
    )


class RedBrickSource(SourceSection):
    platform: Literal["redbrick"]
    api_url: HttpUrl = Field(
        default="https://api.redbrickai.com", description="the platform's base URL"
    )
    organization: str = Field(min_length=1, description="the organization's id")
    ground_truth_stages: Names = Field(
        default=("END", "Output"),
        min_length=1,
        description="tasks in these stages are ground truth",
    )


Source = Annotated[LabelboxSource | RedBrickSource, Field(discriminator="platform")]
SOURCE_KINDS: tuple[type[SourceSection], ...] = (LabelboxSource, RedBrickSource)


class LogSection(Section):
    """The audit log."""

    key: SecretValue | None = Field(
        default=None, description="file:PATH or env:NAME of the signing key (groundwire key new)"
    )
    origin: str = Field(
        default="groundwire",
        pattern=r"^[^\s+\x00-\x1f]{1,200}$",
        description="the log's name in its checkpoints, such as example.org/ground-truth",
    )
    index: str = Field(
        default="",
        description="a local file of the ids in the log; empty is beside the queue's own",
    )


class Retry(Section):
    """How often and when what failed is tried again."""

    attempts: int = Field(
        default=12, ge=1, le=100, description="tries before a message is given up"
    )
    base_s: float = Field(default=2.0, gt=0, description="the first wait, doubled with each try")
    cap_s: float = Field(default=3600.0, gt=0, description="the longest wait")


class SweepSection(Section):
    """What no webhook told is found by comparing the lake with the platform."""

    every_s: float = Field(
        default=600.0,
        ge=0,
        le=7 * 86_400,
        description="how often the tasks that changed are asked for; 0 is never",
    )
    full_every_s: float = Field(
        default=86_400.0,
        ge=1,
        le=30 * 86_400,
        description="how often all tasks of a project are compared; its first sweep always does",
    )
    overlap_s: float = Field(
        default=900.0,
        ge=0,
        le=86_400,
        description="how much of the time before is asked for again, by the platform's clock",
    )
    most_waiting: int = Field(
        default=2000,
        ge=1,
        le=1_000_000,
        description="a sweep waits while so many events are queued, so that webhooks get through",
    )


class WorkSection(Section):
    """How a worker works."""

    concurrency: int = Field(
        default=4, ge=1, le=64, description="batches of a lane in work at once"
    )
    max_download_bytes: int = Field(
        default=1 << 28, ge=1, description="a larger mask is given up, with its reason"
    )
    download_timeout_s: float = Field(default=120.0, gt=0, description="for one mask")
    max_image_bytes: int = Field(
        default=1 << 34, ge=1, description="a series whose images are larger is not fetched"
    )
    stop_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="after SIGTERM, what is not finished by then is given back",
    )
