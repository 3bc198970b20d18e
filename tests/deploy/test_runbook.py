"""Alarms and runbook: every metric, reason and command that they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from consumer.ports import LaneDepth
from consumer.telemetry import Metrics
from tests.deploy.commands import is_command

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
RUNBOOK = (DEPLOY / "runbook.md").read_text()
METRIC = re.compile(r"groundwire_[a-z_]+")


def samples() -> dict[str, set[str]]:
    """Every metric by the name under which it is scraped, with its labels."""
    metrics = Metrics(["source"])
    metrics.accepted("source", 1)
    metrics.refused("source", "reason")
    metrics.connection_closed("reason")
    metrics.connections(lambda: 1, lambda: 1)
    metrics.settled("lane")
    metrics.retried("lane", "reason")
    metrics.buried("lane", "reason")
    metrics.not_made("source", "reason")
    metrics.source_paused("source", "reason", paused=True)
    metrics.fetched("source", 1.0, ok=True)
    metrics.downloaded("source", 1.0, 1)
    metrics.lane_depth("lane", LaneDepth(ready=1, leased=1, waiting=1, dead=1, oldest_s=1.0))
    metrics.log_state(1, 1.0)
    metrics.observed("what", ok=True)
    metrics.follower("follower", 1, 2)
    metrics.follower_failed("follower", "reason")
    metrics.follower_troubles("follower", 1)
    metrics.stream_readers(1)
    metrics.inbox(1, away=True)
    metrics.sweep_interval("source", 600)
    metrics.swept("source", "full")
    metrics.sweep_gap("source", "stage")
    metrics.sweep_failed("source", "reason")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if METRIC.match(sample.name) and not sample.name.endswith("_created"):
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


SAMPLES = samples()


def selectors(expr: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric of an expression with its matchers: label, operator, value."""
    for name, matchers in re.findall(r"(groundwire_[a-z_]+)(?:\{([^}]*)\})?", expr):
        yield name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alarm_is_about_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    expr = rule["expr"]
    names = [name for name, _ in selectors(expr)]
    assert names or 'up{job="groundwire"}' in expr
    for name, matchers in selectors(expr):
        assert name in SAMPLES
        assert {label for label, _, _ in matchers} <= SAMPLES[name]
    for kept in re.findall(r"by \(([^)]*)\)", expr):
        assert set(kept.split(", ")) <= set.union(*(SAMPLES[name] for name in names))
    shown = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
    assert all(re.search(rf"by \([^)]*\b{label}\b", expr) for label in shown if names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_reason_that_an_alarm_waits_for_is_one_that_the_code_gives(
    rule: dict[str, Any],
) -> None:
    sources = [*(ROOT / "consumer").rglob("*.py"), *(ROOT / "handlers").rglob("*.py")]
    slugs = {s for file in sources for s in re.findall(r'"([a-z]+(?:-[a-z]+)+)"', file.read_text())}
    for _, matchers in selectors(rule["expr"]):
        for label, _, pattern in matchers:
            for alternative in pattern.split("|") if label == "reason" else ():
                assert any(re.fullmatch(alternative, slug) for slug in slugs), alternative


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_the_runbook_says_what_to_do_at_every_alarm(rule: dict[str, Any]) -> None:
    assert f"| {rule['alert']} ({rule['labels']['severity']}) |" in RUNBOOK
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_runbook_names_every_metric_and_no_other() -> None:
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SAMPLES}
    assert set(METRIC.findall(RUNBOOK)) == families


def test_the_runbook_has_no_alarm_that_nothing_raises() -> None:
    assert set(re.findall(r"\| (Groundwire\w+)", RUNBOOK)) == {rule["alert"] for rule in RULES}


def test_the_runbook_uses_only_commands_and_options_that_exist() -> None:
    written = re.findall(r"`groundwire ([^`]+)`", RUNBOOK)
    assert len(written) > 8
    for text in written:
        assert is_command(text.split()), text


def test_the_runbook_names_only_files_that_exist() -> None:
    for name in re.findall(r"`([\w-]+\.(?:json|yaml|toml))`", RUNBOOK):
        assert (DEPLOY / name).exists(), name
