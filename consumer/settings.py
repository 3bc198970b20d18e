"""``groundwire.toml`` and the environment become `Settings`; every mistake is reported at once.

``GROUNDWIRE_A__B`` overrides ``[a] b``; a variable without ``__`` counts only when it names a
top-level key, so ``GROUNDWIRE_ADMIN_TOKEN`` may hold a secret.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from consumer.model import ExportRules, canonical, digest
from consumer.settings_across import across, places
from consumer.settings_export import (
    ClassTable,
    ExportSection,
    PrivacySection,
    class_rules,
)
from consumer.settings_follow import (
    ChangesSection,
    FollowSection,
    MirrorSection,
    RelaySection,
    SnapshotSection,
    relay_place,
)
from consumer.settings_model import (
    SOURCE_KINDS,
    Admin,
    Http,
    LabelboxSource,
    LogSection,
    Retry,
    Source,
    SweepSection,
    WorkSection,
)
from consumer.settings_retrain import TARGET_KINDS, PolicySection, secrets_of
from consumer.settings_values import (
    OWN_FOLDER,
    InboxPlace,
    LakePlace,
    Place,
    QueuePlace,
    Secret,
    SecretValue,
    Section,
)

PREFIX = "GROUNDWIRE_"
DEFAULT_FILE = Path("groundwire.toml")
MAX_FILE_BYTES = 1 << 20

PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class ConfigurationError(Exception):
    """Groundwire does not start: ``mistakes`` has one sentence for each, with its key."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class Settings(Section):
    """The whole configuration, understood; the log key apart, nothing of it is made up later."""

    queue: QueuePlace = Field(
        default=Place(f"sqlite:///{OWN_FOLDER}/queue.db"),
        description="or amqp://user@host/vhost, amqps://user@host/vhost",
    )
    queue_password: SecretValue | None = Field(
        default=None, description="env:NAME or file:PATH; of the broker's user"
    )
    queue_ca: str = Field(
        default="", description="file of the authority that signed the broker's key"
    )
    inbox: InboxPlace | None = Field(
        default=None,
        description="sqlite:///PATH; where the receiver keeps events while the broker is away",
    )
    queue_prefix: str = Field(
        default="groundwire",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="with what the names of the broker's queues begin",
    )
    declare: bool = Field(
        default=True, description="false: the broker's queues are yours, and only checked"
    )
    lake: LakePlace = Field(
        default=Place(f"file:///{OWN_FOLDER}/lake"), description="or s3://bucket/prefix"
    )
    lake_endpoint: str = Field(
        default="", description="of another S3 than Amazon's, such as https://s3:9000"
    )
    http: Http = Http()
    admin: Admin = Admin()
    sources: dict[SourceName, Source] = Field(
        default={}, description="the accounts, each by its name"
    )
    export: ExportSection = ExportSection()
    classes: ClassTable = Field(
        default={}, description="voxel values by class name, the same in every task: liver = 1"
    )
    privacy: PrivacySection = PrivacySection()
    log: LogSection = LogSection()
    follow: FollowSection = FollowSection()
    mirror: MirrorSection = MirrorSection()
    relay: RelaySection = RelaySection()
    changes: ChangesSection = ChangesSection()
    snapshots: SnapshotSection = SnapshotSection()
    retrain: dict[PolicyName, PolicySection] = Field(
        default={}, description="when training begins by itself, each policy by its name"
    )
    sweep: SweepSection = SweepSection()
    retry: Retry = Retry()
    work: WorkSection = WorkSection()

    @property
    def embedded(self) -> bool:
        """One machine: queue and lake are files."""
        return self.queue.scheme == "sqlite" and self.lake.scheme == "file"

    @property
    def data_folder(self) -> Path:
        """Where local state lies: beside the queue's file, outside the lake."""
        return self.queue.path.parent if self.queue.scheme == "sqlite" else Path(OWN_FOLDER)

    @property
    def log_key_file(self) -> Path:
        """Where an embedded log's key is made at first start."""
        return self.data_folder / "log.key"

    @property
    def queue_ca_file(self) -> Path | None:
        return Path(self.queue_ca.removeprefix("file:")) if self.queue_ca else None

    @property
    def log_index_file(self) -> Path:
        return Path(self.log.index) if self.log.index else self.data_folder / "log-index.db"

    @property
    def relay_place(self) -> Place | None:
        """The broker of the relay."""
        return relay_place(self.relay, self.queue)

    def followers(self) -> tuple[str, ...]:
        """The names of those that are switched on."""
        asked = {"mirror": self.follow.mirror, "table": self.follow.table}
        asked |= {"relay": self.follow.relay, "retrain": bool(self.retrain)}
        return tuple(name for name, wanted in asked.items() if wanted)

    def rules(self) -> dict[str, ExportRules]:
        """What is exported, by source."""
        return {name: self._rules(source) for name, source in self.sources.items()}

    def _rules(self, source: Source) -> ExportRules:
        views = source.views if isinstance(source, LabelboxSource) else {}
        images = (source.images,) if isinstance(source, LabelboxSource) and source.images else ()
        classes = self.classes if source.classes is None else source.classes
        return ExportRules(
            **{**self.export.model_dump(), **source.export.model_dump(exclude_none=True)},
            classes=class_rules(classes),
            views={group: view.convention() for group, view in sorted(views.items())},
            paths=self.privacy.paths,
            emails=self.privacy.emails,
            email_key_id=key_id(self.email_key) if self.privacy.emails == "hash" else "",
            images=(*images, *sorted(source.image_prefixes)),
        )

    @property
    def email_key(self) -> bytes:
        """With which e-mails are hashed."""
        return self.privacy.key.reveal().encode() if self.privacy.key else b""

    def secrets(self) -> list[str]:
        """Every secret text there is, so that log lines can be kept free of them."""
        ours = (
            self.queue_password,
            self.admin.token,
            self.log.key,
            self.privacy.key,
            self.relay.password,
            self.snapshots.key,
        )
        found = [one for one in ours if one]
        for policy in self.retrain.values():
            found += secrets_of(policy)
        for source in self.sources.values():
            found += [*source.secrets, source.api_key]
        texts = [one.reveal() for one in found]
        places = (self.queue, self.relay.url)
        return [*texts, *(place.password for place in places if place and place.password)]

    def fingerprint(self) -> str:
        """The hash of the configuration, in which secrets stand by reference only."""
        return digest(canonical(self.model_dump(mode="json")))


def load(file: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of ``file`` (None: ``groundwire.toml``, if there is one) and the environment.

    Raises `ConfigurationError` with every mistake at once.
    """
    mistakes: list[str] = []
    raw = _merge(_read(file, mistakes), _environment(environ, mistakes))
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(raw, context=environ)
    except ValidationError as error:
        mistakes += _sentences(error.errors())
    mistakes += across(raw)
    if settings is not None:
        mistakes += places(settings)
    if mistakes or settings is None:
        raise ConfigurationError(sorted(set(mistakes)))
    return settings


def load_lake(
    file: Path | None, lake: str | None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Of the settings, only where the lake is (``lake``, if given) and the log's origin: whoever
    reads the lake needs no secret. Raises `ConfigurationError`."""
    mistakes: list[str] = []
    raw = _merge(_read(file, mistakes), _environment(environ, mistakes))
    only: dict[str, Any] = {name: raw[name] for name in ("lake", "lake_endpoint") if name in raw}
    log = raw.get("log")
    if isinstance(log, dict) and "origin" in log:
        only["log"] = {"origin": log["origin"]}
    if lake is not None:
        only["lake"] = lake
    try:
        settings = Settings.model_validate(only)
    except ValidationError as error:
        raise ConfigurationError([*mistakes, *_sentences(error.errors())]) from error
    if mistakes:
        raise ConfigurationError(mistakes)
    return settings


def _read(file: Path | None, mistakes: list[str]) -> dict[str, Any]:
    path = file or DEFAULT_FILE
    if file is None and not path.exists():
        return {}
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"holds more than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        mistakes.append(f"{path}: cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:  # TOML and UTF-8 errors are ValueErrors
        mistakes.append(f"{path}: is not TOML: {error}")
    return {}


def _environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    """The overrides: ``GROUNDWIRE_A__B__C=x`` is ``{a: {b: {c: x}}}``; lists and tables as JSON."""
    found: dict[str, Any] = {}
    for variable, text in sorted(environ.items()):
        path = variable.removeprefix(PREFIX).lower().split("__")
        top_level = len(path) == 1 and path[0] in Settings.model_fields
        if not variable.startswith(PREFIX) or not (len(path) > 1 or top_level):
            continue
        try:
            value: Any = json.loads(text) if text[:1] in ("[", "{") else text
        except (ValueError, RecursionError):
            mistakes.append(f"{variable}: begins like JSON but is not")
            continue
        table = found
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                mistakes.append(f"{variable}: another variable gives {part} as a whole")
                break
        else:
            table[path[-1]] = value
    return found


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` wins; a source's ``-`` may be ``_`` there, as no shell exports a name with ``-``."""
    merged = dict(base)
    for key, value in over.items():
        name = next((k for k in base if k.replace("-", "_") == key), key)
        below = merged.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _sentences(errors: Sequence[ErrorDetails]) -> list[str]:
    """A list that lost its wrong items is not said to be empty as well."""
    places = [one["loc"] for one in errors]
    return [
        _sentence(one)
        for one in errors
        if one["type"] != "too_short"
        or not any(p[: len(one["loc"])] == one["loc"] and p != one["loc"] for p in places)
    ]


def _sentence(error: ErrorDetails) -> str:
    """One mistake as ``key: what is wrong``; the value given is never repeated."""
    loc = list(error["loc"])
    if loc[:1] == ["sources"] and len(loc) > 2 and loc[2] in ("labelbox", "redbrick", "[key]"):
        del loc[2]  # pydantic's mark of the branch it took
    if loc[:1] == ["retrain"] and len(loc) > 3 and loc[2] == "target":
        del loc[3]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    match error["type"]:
        case "missing":
            said = "is missing"
        case "extra_forbidden":
            said = "unknown key" + _meant(loc)
        case "too_short" | "string_too_short":
            said = "must not be empty"
        case "union_tag_not_found":
            key, said = f"{key}.{_tag(loc)}", f"is missing: one of {_tags(loc)}"
        case "union_tag_invalid":
            key, said = f"{key}.{_tag(loc)}", f"must be one of {_tags(loc)}"
        case "string_pattern_mismatch" if loc[0] == "sources":
            said = "a source's name is of a-z, 0-9, - and _, at most 40 of them"
        case "string_pattern_mismatch" if loc[0] == "retrain" and loc[-1] == "[key]":
            said = "a policy's name is of a-z, 0-9, - and _, at most 40 of them"
        case "string_pattern_mismatch":
            said = "holds characters that it must not"
        case _:
            said = re.sub(r"^(Value error, |Input )", "", error["msg"]).replace("should", "must")
    return f"{key}: {said}"


def _tag(loc: Sequence[Any]) -> str:
    """The key that tells which kind of table stands there."""
    return "type" if loc[0] == "retrain" else "platform"


def _tags(loc: Sequence[Any]) -> str:
    kinds = TARGET_KINDS if loc[0] == "retrain" else SOURCE_KINDS
    return ", ".join(get_args(kind.model_fields[_tag(loc)].annotation)[0] for kind in kinds)


def _meant(loc: Sequence[Any]) -> str:
    known: list[type[Section]] = [Settings, *SOURCE_KINDS, *TARGET_KINDS, *_sections()]
    names = {name for section in known for name in section.model_fields}
    close = difflib.get_close_matches(str(loc[-1]), sorted(names), n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close and close[0] != loc[-1] else ""


def _sections() -> list[type[Section]]:
    kinds = (field.annotation for field in Settings.model_fields.values())
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]


def key_id(key: bytes) -> str:
    """Tells one key from another without telling anything of it."""
    return hmac.new(key, b"groundwire e-mail key", hashlib.sha256).hexdigest()[:16]


__all__ = ["ConfigurationError", "Secret", "Settings", "load"]
