"""The ``groundwire.toml`` of the demo, as a person would write it, with its secrets in files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from consumer.demo.script import Cast
from consumer.log.note import new_key
from consumer.model import digest

ORIGIN = "demo.groundwire.example"
STARTED = "training-started.json"


def write_configuration(
    directory: Path,
    cast: Cast,
    redbrick_url: str,
    labelbox_url: str,
    *,
    queue: str | None,
    lake: str | None,
    training: bool = False,
) -> Path:
    """Writes the file and its secrets into ``directory`` and returns its path. Without ``queue``
    and ``lake`` both lie in the directory, too. ``training``: it begins by itself, with two tasks
    that are new in the ground truth."""
    secrets = directory / "secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    for name, secret in (
        ("redbrick-token", cast.token),
        ("redbrick-api-key", cast.redbrick.api_key),
        ("labelbox-webhook-secret", cast.labelbox.webhook_secret),
        ("labelbox-api-key", cast.labelbox.api_key),
    ):
        _write_private(secrets / name, secret)
    key = secrets / "log.key"
    if not key.exists():
        new_key(key, ORIGIN)
    lake = lake or f"file://{directory}/lake"
    path = directory / "groundwire.toml"
    path.write_text(
        f"""\
queue = {_text(queue or f"sqlite://{directory}/queue.db")}
queue_prefix = "groundwire-demo"
lake = {_text(lake)}

[http]
listen = "127.0.0.1:0"

[admin]
listen = "127.0.0.1:0"

[log]
key = {_text(f"file:{key}")}
origin = {_text(ORIGIN)}
index = {_text(str(directory / f"log-index-{digest(lake.encode())[:8]}.db"))}

[sweep]
every_s = 0

[export]
dicom_to_nifti = true

[classes]
liver = 1
lesion = 2
vessel = 3

[sources.redbrick]
platform = "redbrick"
secrets = [{_text(f"file:{secrets}/redbrick-token")}]
api_key = {_text(f"file:{secrets}/redbrick-api-key")}
api_url = {_text(redbrick_url)}
organization = {_text(cast.redbrick.org_id)}
projects = [{_text(cast.redbrick.project_id)}]

[sources.labelbox]
platform = "labelbox"
secrets = [{_text(f"file:{secrets}/labelbox-webhook-secret")}]
api_key = {_text(f"file:{secrets}/labelbox-api-key")}
api_url = {_text(f"{labelbox_url}/graphql")}
projects = [{_text(cast.labelbox.project_id)}]

[sources.labelbox.views]
Axial = {{frame_base = 1}}
Sagittal = {{frame_base = 1}}
"""
        + (_training(directory) if training else "")
    )
    return path


def _training(directory: Path) -> str:
    """What is started is told on its standard input what to train on; here it only keeps that."""
    told = directory / STARTED
    return f"""
[mirror]
interval_s = 0

[retrain.organs]
min_changes = 2
quiet = "1s"

[retrain.organs.target]
type = "command"
command = ["sh", "-c", "cat > \\"$0\\"", {_text(str(told))}]
"""


def _text(value: str) -> str:
    return json.dumps(value)  # a JSON string is a TOML string


def _write_private(path: Path, secret: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secret)
