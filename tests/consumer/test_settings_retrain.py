"""``[retrain.NAME]``: what a policy may be, and every way to never fire or always."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from consumer.app_retrain import policy_of
from consumer.settings import Settings
from consumer.settings_retrain import MAX_NAMED, MAX_TEMPLATE, Span
from tests.consumer.test_settings import ENVIRON, SOURCE, loaded, mistakes

SECRET = "whsec_" + "QUJD" * 10
TARGET = """
[retrain.nightly.target]
type = "command"
command = ["train", "--now"]
"""


def a_policy(body: str, *, target: str = TARGET, source: str = SOURCE) -> str:
    return f"{source}\n[retrain.nightly]\n{body}\n{target}"


def policy_mistakes(folder: Path, body: str, **more: str) -> list[str]:
    found = mistakes(folder, a_policy(body, **more), {**ENVIRON, "SIGNING": SECRET})
    return [one.removeprefix("retrain.nightly") for one in found]


def policy(folder: Path, body: str, **more: str) -> Settings:
    return loaded(folder, a_policy(body, **more), {**ENVIRON, "SIGNING": SECRET})


def test_a_policy_is_understood_and_switches_the_follower_on(tmp_path: Path) -> None:
    settings = policy(tmp_path, 'min_changes = 50\nquiet = "15m"\nmax_wait = "7d"')
    found = policy_of("nightly", settings.retrain["nightly"])
    assert (found.min_changes, found.quiet_s, found.max_wait_s) == (50, 900, 604_800)
    assert (found.projects, found.classes, found.dry_run) == (("*",), (), False)
    assert (found.target, found.timeout_s) == ("command", 3600)
    assert "retrain" in settings.followers()


def test_without_a_policy_nothing_is_retrained(tmp_path: Path) -> None:
    assert "retrain" not in loaded(tmp_path, SOURCE).followers()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("15m", 900), ("6h", 21_600), ("7d", 604_800), ("2w", 1_209_600),
        (" 5 m ", 300), (30, 30), (0.5, 0.5), ("0s", 0),
    ],
)  # fmt: skip
def test_times_are_written_as_people_do(text: object, seconds: float) -> None:
    assert TypeAdapter(Span).validate_python(text) == seconds


@pytest.mark.parametrize("text", ["15", "m", "1.5h", "15 minutes", "-1s", "367d", -1, True, [], ""])
def test_what_is_no_time_is_a_mistake(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Span).validate_python(text)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", ": never fires: give min_changes or max_wait"),
        ("dry_run = true", ": never fires: give min_changes or max_wait"),
        ('max_wait = "0s"', ": max_wait of 0 would fire at every change: leave it out or raise it"),
        ("min_changes = 1", ": would fire at every change: give quiet, or raise min_changes"),
        (
            'max_wait = "7d"\nquiet = "15m"',
            ": quiet means nothing without min_changes: give it, or leave out quiet",
        ),
        (
            'min_changes = 5\nmax_wait = "1h"\nquiet = "1h"',
            ": quiet is not shorter than max_wait, so it would never matter",
        ),
        ("min_changes = -1", ".min_changes: must be greater than or equal to 0"),
        ("min_changes = 5\nprojects = []", ".projects: must not be empty"),
        (
            'min_changes = 5\nprojects = ["a", "*"]',
            '.projects: "*" is every project; leave out the others',
        ),
        (
            'min_changes = 5\nclasses = ["liver", ""]',
            ".classes: holds a name that is empty or begins or ends with a space",
        ),
        ('min_changes = 5\nclass = ["x"]', ".class: unknown key (did you mean classes?)"),
    ],
)
def test_a_policy_that_could_never_fire_or_always_would_is_a_mistake(
    tmp_path: Path, body: str, said: str
) -> None:
    assert policy_mistakes(tmp_path, body) == [said]


def test_every_change_may_fire_if_it_is_debounced(tmp_path: Path) -> None:
    assert policy(tmp_path, 'min_changes = 1\nquiet = "10m"').retrain["nightly"].quiet == 600


def test_a_project_that_no_source_takes_never_comes(tmp_path: Path) -> None:
    source = SOURCE + 'projects = ["p"]\n'
    found = policy_mistakes(tmp_path, 'min_changes = 5\nprojects = ["p", "q"]', source=source)
    assert found == [".projects: no source takes the project q"]
    assert policy(tmp_path, 'min_changes = 5\nprojects = ["q"]').retrain  # its source takes all


def test_a_class_that_no_table_knows_never_comes(tmp_path: Path) -> None:
    source = "[classes]\nliver = 1\n" + SOURCE
    found = policy_mistakes(tmp_path, 'min_changes = 5\nclasses = ["livr"]', source=source)
    assert found == [".classes: livr is in no [classes]"]
    assert policy(tmp_path, 'min_changes = 5\nclasses = ["liver"]', source=source).retrain


def test_where_a_source_has_no_table_any_class_may_come(tmp_path: Path) -> None:
    body = 'min_changes = 5\nclasses = ["nodule"]'
    assert policy(tmp_path, body).retrain
    other = SOURCE.replace("sources.lb", "sources.zz") + 'projects = ["z"]\n'
    tabled = SOURCE + 'projects = ["p"]\n[sources.lb.classes]\nliver = 1\n' + other
    assert policy(tmp_path, body, source=tabled).retrain
    found = policy_mistakes(tmp_path, f'{body}\nprojects = ["p"]', source=tabled)
    assert found == [".classes: nodule is in no [classes]"]


def test_what_is_named_fits_into_an_entry_of_the_log(tmp_path: Path) -> None:
    names = ", ".join(f'"{"x" * 100}{number}"' for number in range(300))
    found = policy_mistakes(tmp_path, f"min_changes = 5\nclasses = [{names}]")
    assert found == [f".classes: has over {MAX_NAMED} bytes of names"]


def test_a_name_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    settings = policy(tmp_path, 'min_changes = 5\nclasses = ["a", "b", "a"]')
    assert settings.retrain["nightly"].classes == ("a", "b")


@pytest.mark.parametrize("name", ["Upper", "a b", "-x", "x" * 41])
def test_a_policy_has_a_name_that_fits_everywhere(tmp_path: Path, name: str) -> None:
    text = a_policy("min_changes = 5").replace("retrain.nightly", f'retrain."{name}"')
    assert any("a policy's name is of a-z" in one for one in mistakes(tmp_path, text))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ('type = "kubeflow"', ".type: must be one of webhook, http, airflow, sagemaker, command"),
        ('command = ["x"]', ".type: is missing: one of webhook, http, airflow, sagemaker, command"),
        ('type = "command"\ncommand = []', ".command: must not be empty"),
        ('type = "command"\ncommand = ["x"]\ntimeout_s = 0', ".timeout_s: must be greater than 0"),
        (
            'type = "webhook"\nurl = "ftp://x"\nsecret = "env:SIGNING"',
            ".url: must be a URL that begins with https:// (or http://)",
        ),
        ('type = "webhook"\nurl = "https://x"', ".secret: is missing"),
        (
            'type = "webhook"\nurl = "https://x"\nsecret = "env:KEY"',
            ".secret: must hold whsec_ and the base64 of 24 to 64 bytes",
        ),
        (
            'type = "http"\nurl = "https://x"\nbody = "costs 5$"',
            ".body: holds a $ that names nothing; write $$ for a dollar",
        ),
        (
            'type = "airflow"\nurl = "https://x"\ndag = "train"',
            ": needs either token, or username and password",
        ),
        (
            'type = "airflow"\nurl = "https://x"\ndag = "a/b"\ntoken = "env:KEY"',
            ".dag: holds characters that it must not",
        ),
    ],
)
def test_a_target_that_cannot_be_is_a_mistake(tmp_path: Path, target: str, said: str) -> None:
    found = policy_mistakes(
        tmp_path, "min_changes = 5", target=f"[retrain.nightly.target]\n{target}\n"
    )
    assert found == [f".target{said}"]


def test_a_policy_without_a_target_is_a_mistake(tmp_path: Path) -> None:
    assert policy_mistakes(tmp_path, "min_changes = 5", target="") == [".target: is missing"]


def test_a_template_names_only_what_there_is_and_has_an_end(tmp_path: Path) -> None:
    head = '[retrain.nightly.target]\ntype = "http"\nurl = "https://x/${snapshot}"\n'
    good = head + 'body = \'{"costs": "5$$", "key": "$key"}\'\n'
    assert policy(tmp_path, "min_changes = 5", target=good).retrain
    (unknown,) = policy_mistakes(tmp_path, "min_changes = 5", target=head + 'body = "$snapshoot"\n')
    assert unknown.startswith(".target.body: knows no $snapshoot; there are $key, $policy")
    long = head + f'body = "{"x" * (MAX_TEMPLATE + 1)}"\n'
    (found,) = policy_mistakes(tmp_path, "min_changes = 5", target=long)
    assert found.startswith(".target.body: ")


def test_secrets_of_targets_show_nowhere_and_are_kept_out_of_log_lines(tmp_path: Path) -> None:
    target = """
[retrain.nightly.target]
type = "http"
url = "https://x"
secret_headers = {Authorization = "env:KEY"}
"""
    settings = policy(tmp_path, "min_changes = 5", target=target)
    assert ENVIRON["KEY"] in settings.secrets()
    assert ENVIRON["KEY"] not in repr(settings) + settings.model_dump_json()


def test_a_policys_hash_knows_every_setting_and_no_secret(tmp_path: Path) -> None:
    def configuration(body: str, **environ: str) -> str:
        target = '[retrain.nightly.target]\ntype = "webhook"\nurl = "https://x"\nsecret = "env:S"\n'
        text = a_policy(body, target=target)
        settings = loaded(tmp_path, text, {**ENVIRON, "S": SECRET, **environ})
        return policy_of("nightly", settings.retrain["nightly"]).configuration

    one = configuration("min_changes = 5")
    assert configuration("min_changes = 5", S="whsec_" + "REVG" * 10) == one
    assert configuration("min_changes = 6") != one
