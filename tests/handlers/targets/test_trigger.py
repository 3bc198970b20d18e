"""What every target is told."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest

from consumer.settings_retrain import TEMPLATE_NAMES
from handlers.targets.trigger import Fired
from tests.handlers.targets.peers import TRIGGER, another


def test_the_event_has_what_cloudevents_require() -> None:
    event = TRIGGER.event()
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "subject")} == {
        "specversion": "1.0",
        "id": TRIGGER.key,
        "source": "example.org/ground-truth~0a1b2c3d4e5f",
        "type": "io.groundwire.retrain",
        "subject": "nightly",
    }
    assert event["time"] == TRIGGER.decided_at
    assert event["datacontenttype"] == "application/json"


def test_the_event_names_the_decision_the_log_and_the_snapshot() -> None:
    data = TRIGGER.event()["data"]
    assert data["log"] == {
        "identity": TRIGGER.log,
        "size": TRIGGER.log_size,
        "root": TRIGGER.log_root,
    }
    assert data["snapshot"] == {
        "id": TRIGGER.snapshot,
        "name": TRIGGER.snapshot_name,
        "key": TRIGGER.snapshot_key,
        "sha256": TRIGGER.snapshot_sha256,
    }
    assert (data["decision"], data["tasks"], data["added"], data["changed"]) == (12, 640, 50, 7)


@pytest.mark.parametrize("log", ["häuser~1", 'a"b~1', "a:b~1", "a?b#c~1", "groundwire~1"])
def test_the_source_is_a_uri_reference_whatever_the_log_is_called(log: str) -> None:
    source = another(log=log).event()["source"]
    assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", source)
    assert urlsplit(source).path == source


def test_the_same_trigger_is_the_same_bytes() -> None:
    assert TRIGGER.body() == another().body()
    assert json.loads(TRIGGER.body()) == TRIGGER.event()


def test_templates_may_name_every_field_and_no_other() -> None:
    assert set(TRIGGER.fields()) == set(TEMPLATE_NAMES)
    assert json.loads(TRIGGER.fields()["event"]) == TRIGGER.event()


@pytest.mark.parametrize("key", ["", "x" * 65, "a b", "a/b", "ä", "a\n"])
def test_a_key_that_some_target_could_not_take_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        another(key=key)


def test_a_target_need_say_nothing_of_its_run() -> None:
    assert Fired() == Fired(reference="", already=False)
