"""What is said of retraining can be written into a configuration as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from consumer.app_targets import make_target
from consumer.settings import load

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "deploy" / "retraining.md").read_text()
README = (ROOT / "README.md").read_text()
SECRETS = {
    "TRAIN_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr",
    "GITHUB_AUTHORIZATION": "Bearer x",
    "ARGO_AUTHORIZATION": "Bearer x",
    "AIRFLOW_PASSWORD": "x",
}


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


POLICY, *TARGETS = fenced(GUIDE, "toml")
WHOLE = [one for one in fenced(README, "toml") if one.startswith("[retrain.")]


@pytest.mark.parametrize("text", [*(POLICY + one for one in TARGETS), *WHOLE])
def test_every_policy_that_is_shown_can_be_made(text: str, tmp_path: Path) -> None:
    file = tmp_path / "groundwire.toml"
    file.write_text(text)
    policy = load(file, SECRETS).retrain["nightly"]
    assert make_target(policy.target, [], environ=SECRETS) is not None
    assert policy.min_changes == 50


def test_each_kind_of_target_is_shown() -> None:
    kinds = set(re.findall(r'^type = "(\w+)"', "".join(TARGETS), re.MULTILINE))
    assert kinds == {"webhook", "http", "airflow", "sagemaker", "command"}


def test_the_other_side_s_files_are_yaml() -> None:
    files = fenced(GUIDE, "yaml")
    assert len(files) == 2
    assert all(list(yaml.safe_load_all(one)) for one in files)
