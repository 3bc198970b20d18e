"""What ``groundwire check`` warns of: each unsafe setting, and none that is safe."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import pytest

from consumer.demo.redbrick import SimulatedRedBrick
from consumer.settings import Settings, load
from consumer.settings_warnings import Caution, cautions

STRONG = "0123456789abcdef0123456789abcdef"
ENVIRON = {"TOKEN": STRONG, "KEY": "an-api-key", "WEAK": "hunter2", "GUEST": "guest"}
SAFE = """\
queue = "amqps://groundwire@broker.example/vhost"
queue_password = "env:TOKEN"
lake = "s3://bucket/prefix"
[log]
key = "env:TOKEN"
index = "{folder}/index.db"
[http]
listen = "10.0.0.5:8080"
[admin]
token = "env:TOKEN"
[sources.a]
platform = "labelbox"
secrets = ["env:TOKEN"]
api_key = "env:KEY"
projects = ["p1"]
download_hosts = ["files.example"]
"""


def private(folder: Path) -> Path:
    folder.chmod(0o700)
    return folder


def of(folder: Path, text: str) -> dict[str, Caution]:
    file = folder / "groundwire.toml"
    file.write_text(text.replace("{folder}", str(folder)))
    return {one.what: one for one in cautions(load(file, ENVIRON))}


def changed(folder: Path, old: str, new: str) -> dict[str, Caution]:
    assert old in SAFE
    return of(private(folder), SAFE.replace(old, new))


def test_a_safe_configuration_is_warned_of_nothing(tmp_path: Path) -> None:
    assert of(private(tmp_path), SAFE) == {}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('platform = "labelbox"', 'platform = "labelbox"\napi_url = "http://api.example/g"',
         "sources.a.api_url"),
        ('lake = "s3', 'lake_endpoint = "http://s3.example:9000"\nlake = "s3', "lake_endpoint"),
        ("amqps://groundwire@", "amqp://groundwire@", "queue"),
        ("amqps://groundwire@", "amqps://guest:guest@", "queue"),
        ('download_hosts = ["files.example"]', "", "sources.a.download_hosts"),
        ('projects = ["p1"]', "", "sources.a.projects"),
        ("[admin]", '[admin]\nlisten = "0.0.0.0:9090"', "admin.listen"),
        ('secrets = ["env:TOKEN"]', 'secrets = ["env:TOKEN", "env:WEAK"]', "sources.a.secrets[1]"),
        ('listen = "10.0.0.5:8080"', 'listen = "0.0.0.0:8080"', "http.listen"),
        ('listen = "10.0.0.5:8080"', 'listen = "[::]:8080"', "http.listen"),
        ("[http]", '[relay]\nurl = "amqp://relay@other.example"\n[http]', "relay.url"),
    ],
)  # fmt: skip
def test_an_unsafe_setting_is_warned_of_with_what_to_do(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    if "guest" in new:
        found = of(
            private(tmp_path),
            SAFE.replace(old, new).replace('queue_password = "env:TOKEN"', ""),
        )
    else:
        found = changed(tmp_path, old, new)
    assert list(found) == [key]
    assert found[key].advice.endswith((".", "`."))
    assert not any(secret in found[key].said for secret in ENVIRON.values() if secret != "guest")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('platform = "labelbox"', 'platform = "labelbox"\napi_url = "http://127.0.0.1:9/g"'),
        ('platform = "labelbox"', 'platform = "labelbox"\napi_url = "http://localhost/g"'),
        ('lake = "s3', 'lake_endpoint = "http://[::1]:9000"\nlake = "s3'),
        ("amqps://groundwire@broker.example", "amqp://groundwire@127.0.0.1"),
        ('listen = "10.0.0.5:8080"', 'listen = "0.0.0.0:8080"\ntrusted_proxies = ["10.0.0.0/8"]'),
    ],
)
def test_what_stays_on_this_machine_or_behind_a_proxy_is_fine(
    tmp_path: Path, old: str, new: str
) -> None:
    assert changed(tmp_path, old, new) == {}


def test_a_broker_without_a_user_is_asked_as_guest(tmp_path: Path) -> None:
    text = SAFE.replace("groundwire@broker", "broker").replace('"env:TOKEN"', '"env:GUEST"', 1)
    assert "guest" in of(private(tmp_path), text)["queue"].said


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_of_a_secret_that_others_may_read_is_warned_of(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "api-key"
    secret.write_text("an-api-key")
    secret.chmod(mode)
    found = changed(tmp_path, '"env:KEY"', f'"file:{secret}"')
    assert list(found) == ["sources.a.api_key"]
    assert f"chmod 600 {secret}" in found["sources.a.api_key"].advice
    secret.chmod(0o600)
    assert changed(tmp_path, '"env:KEY"', f'"file:{secret}"') == {}


def test_the_key_that_the_first_start_made_is_looked_at_too(tmp_path: Path) -> None:
    private(tmp_path)
    text = SAFE.replace('"amqps://groundwire@broker.example/vhost"', '"sqlite:///{folder}/q.db"')
    text = text.replace('queue_password = "env:TOKEN"', "").replace('key = "env:TOKEN"\n', "")
    assert of(tmp_path, text) == {}
    key = tmp_path / "log.key"
    key.write_text("x")
    key.chmod(0o644)
    assert list(of(tmp_path, text)) == ["log.key"]


@pytest.mark.parametrize("key", ["queue", "inbox"])
def test_a_queue_in_a_folder_that_everybody_may_write_to_is_warned_of(
    tmp_path: Path, key: str
) -> None:
    private(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    text = SAFE if key == "inbox" else SAFE[SAFE.index("lake") :]
    found = of(tmp_path, f'{key} = "sqlite:///{{folder}}/shared/deeper/q.db"\n{text}')
    assert key in found
    shared.chmod(0o700)
    found = of(tmp_path, f'{key} = "sqlite:///{{folder}}/shared/deeper/q.db"\n{text}')
    assert key not in found


@pytest.mark.parametrize(("mode", "does"), [(0o755, "read"), (0o777, "altered")])
def test_a_lake_that_every_user_of_the_machine_may_look_into_is_warned_of(
    mode: int, does: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder) / "lake"
        lake.mkdir()
        lake.chmod(mode)
        Path(folder).chmod(0o755)  # pytest's own are in a folder that nobody else may enter
        assert does in _warned_of_lake(lake)
        lake.chmod(0o750)
        assert _warned_of_lake(lake) == ""
        lake.chmod(mode)
        Path(folder).chmod(0o700)
        assert _warned_of_lake(lake) == ""


def _warned_of_lake(lake: Path) -> str:
    settings = Settings(lake=f"file://{lake}")
    return "".join(one.said for one in cautions(settings) if one.what == "lake")


def test_no_configuration_at_all_is_warned_of_nothing(tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(private(tmp_path))
    try:
        assert cautions(Settings()) == []
    finally:
        os.chdir(here)


async def test_check_prints_warnings_and_fails_for_none_of_them(tmp_path: Path) -> None:
    simulator = SimulatedRedBrick()
    async with simulator.serve() as url:
        (private(tmp_path) / "groundwire.toml").write_text(
            f"""
            queue = "sqlite://{tmp_path}/queue.db"
            lake = "file://{tmp_path}/lake"
            [sources.rb]
            platform = "redbrick"
            secrets = ["env:WEAK"]
            api_key = "env:API"
            api_url = "{url}"
            organization = "{simulator.org_id}"
            """
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumer.cli", "check", "-c", str(tmp_path / "groundwire.toml"),
            env={**os.environ, **ENVIRON, "API": simulator.api_key},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
    warned = [line.split(":")[0] for line in said.splitlines() if line.startswith("warn")]
    keys = ["download_hosts", "projects", "secrets[0]"]
    assert warned == [f"warn sources.rb.{key}" for key in keys]
    assert "FAIL" not in said
    assert process.returncode == 0
    assert ENVIRON["WEAK"] not in said
