"""The keys of what follows the log: which followers are on, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.app_follow import chosen
from consumer.settings import ConfigurationError
from tests.consumer.test_settings import ENVIRON, SOURCE, loaded, mistakes

BROKER = 'queue = "amqp://u@h/v"\n'
POLICY = '[retrain.n]\nmin_changes = 5\n[retrain.n.target]\ntype = "command"\ncommand = ["x"]\n'


def test_mirror_and_table_are_on_and_the_rest_is_off(tmp_path: Path) -> None:
    assert loaded(tmp_path, SOURCE).followers() == ("mirror", "table")


def test_each_can_be_switched(tmp_path: Path) -> None:
    switched = "[follow]\nmirror = false\ntable = false\nrelay = true\n"
    settings = loaded(tmp_path, BROKER + SOURCE + switched + POLICY)
    assert settings.followers() == ("relay", "retrain")


def test_the_relay_needs_a_broker(tmp_path: Path) -> None:
    on = "[follow]\nrelay = true\n"
    assert mistakes(tmp_path, SOURCE + on) == (
        "relay.url: is missing; the queue is a file, and the relay needs a broker",
    )
    own = '[relay]\nurl = "amqps://u@h/v"\n'
    place = loaded(tmp_path, SOURCE + on + own).relay_place
    assert place is not None
    assert place.url == "amqps://u@h/v"
    shared = loaded(tmp_path, BROKER + SOURCE + on).relay_place
    assert shared is not None
    assert shared.url == "amqp://u@h/v"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[follow]\nmiror = true", "follow.miror"),
        ("[follow]\npoll_s = 0", "follow.poll_s"),
        ("[mirror]\ninterval_s = -1", "mirror.interval_s"),
        ("[mirror]\ncheck_s = 0", "mirror.check_s"),
        ('[relay]\nurl = "sqlite:///q.db"', "relay.url"),
        ('[relay]\nexchange = "a b"', "relay.exchange"),
        ("[changes]\nmax_readers = 0", "changes.max_readers"),
        ("[changes]\nheartbeat_s = 0", "changes.heartbeat_s"),
        ("[snapshots]\nsplit = {train = 0.5}", "snapshots.split"),
        ("[snapshots]\nsplit = {train = 1.5}", "snapshots.split.train"),
        ("[snapshots]\nsplit = {}", "snapshots.split"),
        ('[snapshots]\npatient = "("', "snapshots.patient"),
        ('[snapshots]\npatient = "(a)(b)"', "snapshots.patient"),
        ('[snapshots]\nkey = "plain"', "snapshots.key"),
    ],
)
def test_what_cannot_be_is_said_with_its_key(tmp_path: Path, text: str, key: str) -> None:
    assert [one.partition(":")[0] for one in mistakes(tmp_path, f"{SOURCE}\n{text}\n")] == [key]


def test_the_parts_of_a_split_add_up_in_spite_of_binary_fractions(tmp_path: Path) -> None:
    text = "[snapshots]\nsplit = {a = 0.7, b = 0.2, c = 0.1}\n"
    assert len(loaded(tmp_path, SOURCE + text).snapshots.split) == 3


def test_a_splits_key_is_kept_out_of_log_lines(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE + '[snapshots]\nkey = "env:KEY"\n')
    assert ENVIRON["KEY"] in settings.secrets()
    assert ENVIRON["KEY"] not in repr(settings)


def test_a_follower_that_is_off_or_unknown_is_said(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE + POLICY)
    assert chosen(settings, "retrain") == ("retrain",)
    with pytest.raises(ConfigurationError, match=r"relay is switched off: write \[follow\] relay"):
        chosen(settings, "relay")
    with pytest.raises(ConfigurationError, match="there is no follower retrian"):
        chosen(settings, "retrian")
    with pytest.raises(
        ConfigurationError, match=r"retrain is switched off: write \[retrain.NAME\]"
    ):
        chosen(loaded(tmp_path, SOURCE), "retrain")
