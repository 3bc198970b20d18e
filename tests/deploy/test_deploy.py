"""The image and the compose file: no engine runs here, so they are held to the sources."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.settings import ConfigurationError, Settings, load
from tests.deploy.commands import is_command

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "groundwire"}


# Secrets and configuration


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make-secrets` fills, with the API keys filled in."""
    folder = tmp_path_factory.mktemp("secrets")
    made = make_secrets(folder)
    assert "labelbox_api_key" in made
    for name in ("labelbox_api_key", "redbrick_api_key"):
        (folder / name).write_text("an-api-key\n")
    return folder


def make_secrets(folder: Path) -> str:
    command = f"{sys.executable} -c 'from consumer.cli import main; main()'"
    environ = {"PATH": os.environ["PATH"], "GROUNDWIRE": f"eval {command}", "PYTHONPATH": str(ROOT)}
    script = [str(DEPLOY / "make-secrets"), str(folder)]
    done = subprocess.run(
        script, env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def given(service: dict[str, Any], secrets: Path) -> dict[str, str]:
    """Where in ``secrets`` each path lies that a container of the service can read."""
    files = {}
    for one in service.get("secrets", ()):
        entry = one if isinstance(one, dict) else {"source": one, "target": f"/run/secrets/{one}"}
        host = COMPOSE["secrets"][entry["source"]]["file"].removeprefix("./secrets/")
        files[entry["target"]] = str(secrets / host)
    return files


def settings_of(service: dict[str, Any], secrets: Path, tmp_path: Path) -> Settings:
    """The settings as the service's process loads them."""
    text = (DEPLOY / "groundwire.toml").read_text()
    environ = dict(service.get("environment", {}))
    for inside, outside in given(service, secrets).items():
        text = text.replace(f'"file:{inside}"', f'"file:{outside}"')
        environ = {k: v.replace(f"file:{inside}", f"file:{outside}") for k, v in environ.items()}
    file = tmp_path / "groundwire.toml"
    file.write_text(text)
    return load(file, environ)


@pytest.mark.parametrize("name", OURS)
def test_every_process_loads_the_configuration_with_its_own_secrets(
    name: str, secrets: Path, tmp_path: Path
) -> None:
    settings = settings_of(OURS[name], secrets, tmp_path)
    assert settings.queue.scheme == "amqp"
    assert settings.lake.bucket == ("lake", "")
    assert settings.work.stop_s < seconds(OURS[name]["stop_grace_period"])


def test_a_secret_that_is_not_given_is_missed(secrets: Path, tmp_path: Path) -> None:
    service = {**OURS["receive"], "secrets": OURS["receive"]["secrets"][1:]}
    with pytest.raises(ConfigurationError, match=r"admin\.token"):
        settings_of(service, secrets, tmp_path)


def test_only_who_writes_the_log_has_its_key(secrets: Path, tmp_path: Path) -> None:
    holders = {n for n, one in OURS.items() if settings_of(one, secrets, tmp_path).log.key}
    assert holders == {"work-audit", "tools"}
    assert holders == {n for n, one in OURS.items() if "log_key" in one["secrets"]}


def test_a_receiver_cannot_reach_the_lake() -> None:
    assert "lake" not in OURS["receive"]["networks"]
    assert "aws_credentials" not in OURS["receive"]["secrets"]


def test_the_broker_and_the_bucket_take_the_passwords_that_we_send(
    secrets: Path, tmp_path: Path
) -> None:
    settings = settings_of(OURS["work-audit"], secrets, tmp_path)
    conf = dict(line.split(" = ") for line in (secrets / "rabbitmq.conf").read_text().splitlines())
    assert settings.queue_password
    assert settings.queue_password.reveal() == conf["default_pass"]
    assert settings.queue.url == f"amqp://{conf['default_user']}@rabbitmq/{conf['default_vhost']}"
    identity = json.loads((secrets / "s3_identities.json").read_text())["identities"][0]
    credentials = (secrets / "aws_credentials").read_text()
    assert identity["credentials"][0]["secretKey"] in credentials
    assert {action.partition(":")[2] for action in identity["actions"]} == {"lake"}


def test_making_secrets_again_changes_none(secrets: Path) -> None:
    before = {file.name: file.read_bytes() for file in secrets.iterdir()}
    assert make_secrets(secrets) == ""
    assert {file.name: file.read_bytes() for file in secrets.iterdir()} == before


def test_secrets_are_distinct_long_and_kept_out_of_git(secrets: Path) -> None:
    random = ["admin_token", "labelbox_webhook_secret", "redbrick_webhook_token"]
    random += ["rabbitmq_password", "s3_secret_key"]
    texts = {(secrets / name).read_text() for name in random}
    assert len(texts) == len(random)
    assert all(len(text) == 48 for text in texts)
    assert "secrets/" in (DEPLOY / ".gitignore").read_text().splitlines()


# Containers


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_held_as_tight_as_it_can_be(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_uses_only_what_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for one in service.get("secrets", ()):
        assert (one["source"] if isinstance(one, dict) else one) in COMPOSE["secrets"]
    for volume in service.get("volumes", ()):
        is_its_own = ":" not in volume and volume.startswith("/")
        assert is_its_own or volume.split(":")[0] in COMPOSE["volumes"]
    for other in service.get("depends_on", {}):
        assert set(service["networks"]) & set(SERVICES[other]["networks"])


def test_what_the_configuration_connects_to_is_a_container(secrets: Path, tmp_path: Path) -> None:
    settings = settings_of(OURS["work-export"], secrets, tmp_path)
    assert re.search(r"@(\w+)/", settings.queue.url)[1] in SERVICES  # type: ignore[index]
    host, port = re.fullmatch(r"http://(\w+):(\d+)", settings.lake_endpoint).groups()  # type: ignore[union-attr]
    assert host in SERVICES
    assert f"-s3.port={port}" in SERVICES[host]["command"]


def test_there_is_one_of_each_process_and_two_that_export() -> None:
    commands = {
        " ".join(one["command"]): one.get("scale", 1) for one in OURS.values() if "command" in one
    }
    assert commands == {"receive": 1, "work export": 2, "work audit": 1, "follow": 1}
    for command in commands:
        assert is_command(command.split()[:1])


def test_only_the_receiver_is_published_and_only_on_loopback() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert published == {"receive": ["127.0.0.1:8080:8080"]}


# The image

STEPS = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text()).splitlines()


def test_the_image_copies_what_exists_and_what_its_ignore_file_lets_in() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [step.split()[1:-1] for step in STEPS if re.match(r"COPY (?!--from)", step)]
    for source in (name for names in copied for name in names):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored


def test_the_image_installs_only_what_is_locked() -> None:
    """What builds the package is locked as well, and the package itself needs no index."""
    steps = [one for step in STEPS if step.startswith("RUN") for one in step.split("&&")]
    installs = [one for one in steps if "pip" in one and re.search(r" (install|wheel) ", one)]
    locked = [one for one in installs if "--require-hashes" in one and "--only-binary" in one]
    assert [one.split()[-1] for one in locked] == ["requirements-build.lock", "requirements.lock"]
    ours = [one for one in installs if one not in locked]
    assert all("--no-deps" in one for one in ours)
    assert all("--no-build-isolation" in one or "--no-index" in one for one in ours)
    assert len(ours) == 2


def test_the_base_of_both_stages_can_be_named_by_its_digest() -> None:
    bases = [step.split()[1] for step in STEPS if step.startswith("FROM")]
    assert bases == ["${PYTHON}", "${PYTHON}"]
    assert not any(step.startswith("# syntax=") for step in STEPS)  # that would be fetched, too


def test_the_image_does_not_run_as_root() -> None:
    users = [step.split()[1] for step in STEPS if step.startswith("USER")]
    assert users == ["10001:10001"]
    assert STEPS.index("USER 10001:10001") > max(
        i for i, step in enumerate(STEPS) if step.startswith("RUN")
    )


def test_the_health_check_asks_the_admin_listener(secrets: Path, tmp_path: Path) -> None:
    check = next(step for step in STEPS if step.startswith("HEALTHCHECK"))
    command = json.loads(check[check.index("CMD ") + 4 :])
    compile(command[2], "healthcheck", "exec")
    assert f":{Settings().admin.listen.port}/readyz" in command[2]
    settings = settings_of(OURS["receive"], secrets, tmp_path)
    assert settings.admin.listen.port == Settings().admin.listen.port


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_series_are_converted_on_disk_and_not_in_the_memory_of_tmp() -> None:
    worker = SERVICES["work-export"]
    assert worker["environment"]["TMPDIR"] in worker["volumes"]
