"""The keys of ``[retrain.NAME]``: when training begins by itself, and what it starts.

A policy that could never fire, or always would, is a mistake.
"""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from string import Template
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from consumer.settings_values import HttpUrl, Names, Secret, SecretValue, Section

_SPAN = re.compile(r"([0-9]{1,6})\s*([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_SPAN_S = 366 * 86_400.0
MAX_TEMPLATE = 16_384  # characters
MAX_NAMED = 30_000  # bytes of a policy's projects, or classes: each decision's log entry has both

# What a template may name: $policy, ${snapshot_id}, ..
TEMPLATE_NAMES = (
    "key", "policy", "decision", "origin", "log_size", "log_root", "snapshot", "snapshot_name",
    "snapshot_key", "snapshot_sha256", "tasks", "added", "changed", "reason", "decided_at", "event",
)  # fmt: skip


def read_span(given: Any) -> float:
    """``90s``, ``15m``, ``6h``, ``7d``, ``2w`` in seconds; a number is seconds."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        seconds = float(given)
    else:
        found = _SPAN.fullmatch(given.strip()) if isinstance(given, str) else None
        if found is None:
            raise ValueError('must be a time such as "90s", "15m", "6h", "7d" or "2w"')
        seconds = float(int(found[1]) * _UNIT_S[found[2]])
    if not 0 <= seconds <= MAX_SPAN_S:
        raise ValueError(f"must be between 0 and {timedelta(seconds=MAX_SPAN_S).days} days")
    return seconds


def _template(text: str) -> str:
    """``$name`` and ``${name}`` are filled in, ``$$`` is a dollar; anything else is a mistake."""
    template = Template(text)
    if not template.is_valid():
        raise ValueError("holds a $ that names nothing; write $$ for a dollar")
    unknown = sorted(set(template.get_identifiers()) - set(TEMPLATE_NAMES))
    if unknown:
        known = ", ".join(f"${name}" for name in TEMPLATE_NAMES)
        raise ValueError(f"knows no ${unknown[0]}; there are {known}")
    return text


def signing_key(secret: Secret) -> bytes:
    """The key of a Standard Webhooks secret (its specification, "Signature scheme"). Raises
    ``ValueError``, which never repeats it."""
    kind, _, text = secret.reveal().rpartition("_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    if kind != "whsec" or not 24 <= len(key) <= 64:
        raise ValueError("must hold whsec_ and the base64 of 24 to 64 bytes")
    return key


def _signs(secret: Secret) -> Secret:
    signing_key(secret)
    return secret


SigningSecret = Annotated[SecretValue, AfterValidator(_signs)]


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in their order; they stand in the log."""
    if not all(name and name == name.strip() and name.isprintable() for name in names):
        raise ValueError("holds a name that is empty or begins or ends with a space")
    if sum(len(name.encode()) + 8 for name in names) > MAX_NAMED:
        raise ValueError(f"has over {MAX_NAMED} bytes of names")
    return tuple(dict.fromkeys(names))


Chosen = Annotated[Names, AfterValidator(_names)]
Span = Annotated[float, BeforeValidator(read_span)]
TemplateText = Annotated[str, AfterValidator(_template), Field(max_length=MAX_TEMPLATE)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]


class TargetSection(Section):
    """What is started."""

    timeout_s: float = Field(
        default=30.0, gt=0, le=86_400, description="a target that has not answered by then failed"
    )


class WebhookTarget(TargetSection):
    """A CloudEvent by POST, signed as Standard Webhooks says."""

    type: Literal["webhook"]
    url: HttpUrl
    secret: SigningSecret = Field(description="whsec_ and base64 of 24 to 64 bytes")
    old_secret: SigningSecret | None = Field(
        default=None, description="the one before, which signs as well until receivers have changed"
    )


class HttpTarget(TargetSection):
    """A request of one's own: GitHub, Argo Events, whatever has an HTTP API."""

    type: Literal["http"]
    url: Annotated[HttpUrl, AfterValidator(_template)]
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: dict[HeaderName, TemplateText] = Field(default={}, max_length=50)
    secret_headers: dict[HeaderName, SecretValue] = Field(
        default={}, max_length=10, description="env:NAME or file:PATH; such as Authorization"
    )
    body: TemplateText = "$event"
    success: tuple[Annotated[int, Field(ge=200, le=499)], ...] = Field(
        default=(200, 201, 202, 204),
        min_length=1,
        max_length=20,
        description="answers that mean that it began; 409 that it had begun already",
    )


class AirflowTarget(TargetSection):
    """A run of a DAG of Airflow 3 (``POST /api/v2/dags/{dag}/dagRuns``)."""

    type: Literal["airflow"]
    url: HttpUrl = Field(description="Airflow's base URL")
    dag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,250}$")]
    token: SecretValue | None = Field(default=None, description="a bearer token; or")
    username: str = Field(default="", max_length=200, description="with which one is asked for")
    password: SecretValue | None = None
    conf: dict[str, TemplateText] = Field(default={}, max_length=50)

    @model_validator(mode="after")
    def _one_way_in(self) -> AirflowTarget:
        if (self.token is None) == (self.password is None or not self.username):
            raise ValueError("needs either token, or username and password")
        return self


class SageMakerTarget(TargetSection):
    """An execution of a SageMaker pipeline; credentials by boto3's usual chain."""

    type: Literal["sagemaker"]
    pipeline: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_-]{1,256}$")]
    region: str = Field(default="", pattern=r"^[a-z0-9-]{0,30}$")
    endpoint: str = Field(default="", max_length=500, description="of another API than Amazon's")
    parameters: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,250}$")], TemplateText] = Field(
        default={}, max_length=200
    )


class CommandTarget(TargetSection):
    """A command on this machine: the CloudEvent is its standard input."""

    type: Literal["command"]
    command: tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...] = Field(
        min_length=1, max_length=100, description="program and arguments; no shell"
    )
    timeout_s: float = Field(
        default=3600.0, gt=0, le=604_800, description="it is killed, with its children, by then"
    )


Target = Annotated[
    WebhookTarget | HttpTarget | AirflowTarget | SageMakerTarget | CommandTarget,
    Field(discriminator="type"),
]


TARGET_KINDS: tuple[type[TargetSection], ...] = (
    WebhookTarget,
    HttpTarget,
    AirflowTarget,
    SageMakerTarget,
    CommandTarget,
)


class PolicySection(Section):
    """One policy. It fires when ``min_changes`` tasks are new or changed in the ground truth and
    nothing has changed for ``quiet``; or when the oldest of them has waited for ``max_wait``."""

    projects: Chosen = Field(
        default=("*",), min_length=1, description='project ids; "*" is every project'
    )
    classes: Chosen = Field(
        default=(), description="only tasks in which one of these is drawn count; empty is any"
    )
    min_changes: int = Field(
        default=0, ge=0, le=10_000_000, description="so many tasks; 0: only max_wait decides"
    )
    quiet: Span = Field(default=0.0, description='nothing has changed for so long: "15m"')
    max_wait: Span | None = Field(
        default=None, description='even fewer tasks wait no longer than this: "7d"'
    )
    dry_run: bool = Field(default=False, description="decide and log, start nothing")
    target: Target

    @model_validator(mode="after")
    def _may_fire(self) -> PolicySection:
        if self.max_wait == 0:
            raise ValueError("max_wait of 0 would fire at every change: leave it out or raise it")
        if self.min_changes == 0 and self.max_wait is None:
            raise ValueError("never fires: give min_changes or max_wait")
        if self.min_changes == 0 and self.quiet:
            raise ValueError("quiet means nothing without min_changes: give it, or leave out quiet")
        if self.max_wait is not None and self.quiet >= self.max_wait:
            raise ValueError("quiet is not shorter than max_wait, so it would never matter")
        if self.min_changes == 1 and self.quiet == 0:
            raise ValueError("would fire at every change: give quiet, or raise min_changes")
        return self


def secrets_of(policy: PolicySection) -> list[Secret]:
    """Every secret of the policy's target."""
    found: list[Secret] = []
    for value in dict(policy.target).values():
        several = value.values() if isinstance(value, dict) else [value]
        found += [one for one in several if isinstance(one, Secret)]
    return found
