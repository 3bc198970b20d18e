"""The configuration: what is understood, and how every mistake is said at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from consumer.settings import ConfigurationError, Settings, load
from consumer.settings_defaults import defaults
from consumer.settings_model import RedBrickSource
from consumer.settings_values import MAX_SECRET_BYTES, Place

SOURCE = """
[sources.lb]
platform = "labelbox"
secrets = ["env:HOOK"]
api_key = "env:KEY"
"""
ENVIRON = {"HOOK": "hook-secret-1", "KEY": "key-secret-2"}


def written(folder: Path, text: str) -> Path:
    file = folder / "groundwire.toml"
    file.write_text(text, encoding="utf-8")
    return file


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    return load(written(folder, text), ENVIRON if environ is None else environ)


def mistakes(folder: Path, text: str, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text, environ)
    return caught.value.mistakes


def test_a_source_is_all_that_one_machine_needs(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE)
    assert settings.embedded
    assert settings.sources["lb"].secrets[0].reveal() == "hook-secret-1"
    assert settings.queue.path == Path("groundwire-data/queue.db").absolute()
    assert settings.lake.path == Path("groundwire-data/lake").absolute()


def test_every_mistake_is_reported_at_once_with_its_key(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """
        queu = "x"
        [http]
        lisen = "127.0.0.1:1"
        [admin]
        listen = "0.0.0.0:9090"
        [sources.redbrick]
        platform = "redbrick"
        secrets = ["env:NOPE", "env:EMPTY"]
        api_key = "file:/no/such/file"
        [sources.other]
        platform = "elsewhere"
        """,
        {"EMPTY": "  "},
    )
    assert found == (
        "admin.token: is missing, and admin.listen = 0.0.0.0:9090 is not on loopback",
        "http.lisen: unknown key (did you mean listen?)",
        "queu: unknown key (did you mean queue?)",
        "sources.other.platform: must be one of labelbox, redbrick",
        "sources.redbrick.api_key: file /no/such/file cannot be read: No such file or directory",
        "sources.redbrick.organization: is missing",
        "sources.redbrick.secrets[0]: environment variable NOPE is not set",
        "sources.redbrick.secrets[1]: env:EMPTY is empty",
    )


def test_a_secret_written_into_the_file_is_a_mistake_that_does_not_repeat_it(
    tmp_path: Path,
) -> None:
    found = mistakes(tmp_path, SOURCE.replace("env:HOOK", "hunter2-plain"))
    assert found == ("sources.lb.secrets[0]: write env:NAME or file:PATH, not the secret itself",)


def test_no_secrets_at_all_is_a_mistake(tmp_path: Path) -> None:
    found = mistakes(tmp_path, SOURCE.replace('["env:HOOK"]', "[]"))
    assert found == ("sources.lb.secrets: must not be empty",)


def test_a_secret_never_shows_in_any_text_of_the_settings(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE + '[admin]\ntoken = "env:KEY"\n')
    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.sources}"):
        assert "secret-" not in text
    assert "env:HOOK" in repr(settings)
    assert set(settings.secrets()) == {"hook-secret-1", "key-secret-2"}


def test_a_secret_file_may_end_in_a_newline_but_has_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("abc123\n")
    (tmp_path / "two").write_text("abc\n123\n")
    good = SOURCE.replace("env:HOOK", f"file:{tmp_path}/one")
    assert loaded(tmp_path, good).sources["lb"].secrets[0].reveal() == "abc123"
    bad = SOURCE.replace("env:HOOK", f"file:{tmp_path}/two")
    assert "more than one line" in mistakes(tmp_path, bad)[0]


def test_a_secret_file_has_a_size_limit(tmp_path: Path) -> None:
    (tmp_path / "big").write_text("x" * (MAX_SECRET_BYTES + 1))
    found = mistakes(tmp_path, SOURCE.replace("env:HOOK", f"file:{tmp_path}/big"))
    assert "holds more than" in found[0]


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    environ = {
        **ENVIRON,
        "GROUNDWIRE_HTTP__LISTEN": "127.0.0.1:81",
        "GROUNDWIRE_SOURCES__LB__PROJECTS": "a,b",
        "GROUNDWIRE_LAKE": "s3://bucket/some/prefix",
        "GROUNDWIRE_DECLARE": "false",
    }
    settings = loaded(tmp_path, '[http]\nlisten = "127.0.0.1:80"\n' + SOURCE, environ)
    assert settings.http.listen.port == 81
    assert settings.sources["lb"].projects == ("a", "b")
    assert settings.lake.bucket == ("bucket", "some/prefix")
    assert settings.declare is False


def test_a_source_with_a_dash_is_overridden_with_an_underscore(tmp_path: Path) -> None:
    text = SOURCE.replace("sources.lb", "sources.labelbox-prod")
    environ = {**ENVIRON, "GROUNDWIRE_SOURCES__LABELBOX_PROD__API_URL": "https://x.example/g"}
    settings = loaded(tmp_path, text, environ)
    assert settings.sources["labelbox-prod"].api_url == "https://x.example/g"


def test_an_unknown_key_of_the_environment_is_a_mistake(tmp_path: Path) -> None:
    found = mistakes(tmp_path, SOURCE, {**ENVIRON, "GROUNDWIRE_HTTP__LISTEM": "x"})
    assert found == ("http.listem: unknown key (did you mean listen?)",)


def test_a_variable_that_names_no_key_may_hold_a_secret(tmp_path: Path) -> None:
    text = SOURCE + '[admin]\ntoken = "env:GROUNDWIRE_ADMIN_TOKEN"\n'
    settings = loaded(tmp_path, text, {**ENVIRON, "GROUNDWIRE_ADMIN_TOKEN": "t-1234"})
    assert settings.admin.token is not None
    assert settings.admin.token.reveal() == "t-1234"


def test_two_sources_with_one_project_are_a_mistake(tmp_path: Path) -> None:
    text = (
        SOURCE
        + 'projects = ["p", "q"]\n'
        + SOURCE.replace("sources.lb", "sources.zz")
        + 'projects = ["p"]\n'
    )
    found = mistakes(tmp_path, text)
    assert found == ("sources.zz.projects: project p belongs to sources.lb already",)


def test_a_shared_project_is_said_beside_other_mistakes(tmp_path: Path) -> None:
    text = (
        SOURCE
        + 'projects = ["p"]\n'
        + SOURCE.replace("sources.lb", "sources.zz")
        + 'projects = ["p"]\n'
    )
    found = mistakes(tmp_path, text, {"KEY": "k"})
    assert len([one for one in found if "HOOK is not set" in one]) == 2
    assert "sources.zz.projects: project p belongs to sources.lb already" in found


def test_every_project_of_one_account_in_two_sources_is_a_mistake(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path, SOURCE + SOURCE.replace("sources.lb", "sources.zz") + 'projects = ["p"]\n'
    )
    assert found == (
        'sources.zz.projects: "*" meets sources.lb, which has the same account: name them',
    )


def test_every_project_of_two_accounts_is_fine(tmp_path: Path) -> None:
    text = SOURCE + SOURCE.replace("sources.lb", "sources.zz").replace("env:KEY", "env:HOOK")
    assert set(loaded(tmp_path, text).sources) == {"lb", "zz"}


def test_the_star_stands_alone(tmp_path: Path) -> None:
    found = mistakes(tmp_path, SOURCE + 'projects = ["*", "p"]\n')
    assert found == ('sources.lb.projects: "*" is every project; leave out the others',)


def test_a_source_overrides_only_what_it_names_of_the_export(tmp_path: Path) -> None:
    text = SOURCE + '[sources.lb.export]\nstages = ["Done"]\n[export]\nwhen = "ground-truth"\n'
    rules = loaded(tmp_path, text).rules()["lb"]
    assert (rules.when, rules.stages, rules.formats) == ("ground-truth", ("Done",), ("nifti",))


def test_keys_of_what_is_not_built_are_unknown(tmp_path: Path) -> None:
    assert mistakes(tmp_path, SOURCE + "[surprises]\nevery = 60\n") == ("surprises: unknown key",)


@pytest.mark.parametrize("name", ["Upper", "a b", "-x", "x" * 41, "a/b"])
def test_a_source_has_a_name_that_fits_a_url(tmp_path: Path, name: str) -> None:
    found = mistakes(tmp_path, SOURCE.replace("[sources.lb]", f'[sources."{name}"]'))
    assert any("a source's name is of" in one for one in found)


def test_what_is_not_toml_is_said_with_its_line(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "queue = \n")
    assert "is not TOML" in found[0]
    assert "line 1" in found[0]


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.toml", {})


def test_the_fingerprint_knows_no_secret_but_every_setting(tmp_path: Path) -> None:
    one = loaded(tmp_path, SOURCE).fingerprint()
    assert loaded(tmp_path, SOURCE, {"HOOK": "x" * 9, "KEY": "y" * 9}).fingerprint() == one
    assert loaded(tmp_path, SOURCE + '[export]\nwhen = "ground-truth"\n').fingerprint() != one


def test_a_password_in_the_queues_url_is_shown_nowhere(tmp_path: Path) -> None:
    settings = loaded(tmp_path, 'queue = "amqp://u:hunter22@h/v"\n' + SOURCE)
    assert "hunter22" not in repr(settings) + settings.model_dump_json()
    assert "hunter22" in settings.secrets()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///var/lib/x", "/var/lib/x"),
        ("file:////var/lib/x", "/var/lib/x"),
        ("file://localhost/var/x", "/var/x"),
        ("sqlite:////var/q.db", "/var/q.db"),
        ("file:///with%20space", "/with space"),
    ],
)
def test_three_slashes_begin_an_absolute_path(url: str, path: str) -> None:
    assert Place(url).path == Path(path)


@pytest.mark.parametrize("url", ["file:lake/x", "file:./lake/x", "file://./lake/x"])
def test_without_them_a_path_is_relative(url: str) -> None:
    assert Place(url).path == Path("lake/x").absolute()


def test_our_own_folder_lies_in_the_working_directory() -> None:
    assert Place("file:///groundwire-data/lake").path == Path("groundwire-data/lake").absolute()


@pytest.mark.parametrize(
    "line",
    ['queue = "redis://h"', 'queue = "amqp://"', 'lake = "s3://"', 'lake = "/tmp/x"', "lake = 3"],
)
def test_a_place_of_no_known_kind_is_a_mistake(tmp_path: Path, line: str) -> None:
    assert len(mistakes(tmp_path, f"{line}\n{SOURCE}")) == 1


def test_what_is_secret_or_local_lies_outside_the_lake(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("abc")
    text = (
        f'lake = "file://{tmp_path}"\nqueue = "sqlite://{tmp_path}/q.db"\n{SOURCE}'
        f'[log]\nkey = "file:{tmp_path}/k"\n'
    )
    found = mistakes(tmp_path, text)
    assert [one.partition(":")[0] for one in found] == ["log.index", "log.key", "queue"]


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SOURCE)
    with pytest.raises(ValueError, match="frozen"):
        settings.queue_prefix = "other"


def test_the_printed_defaults_are_a_file_that_changes_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, defaults(), {}).fingerprint() == load(None, {}).fingerprint()


def test_the_printed_defaults_show_every_key_with_a_comment() -> None:
    text = defaults()
    for key in ("queue", "body_limit_bytes", "trusted_proxies", "token", "when", "origin", "cap_s"):
        lines = [line for line in text.splitlines() if line.lstrip("# ").startswith(f"{key} =")]
        assert lines
        assert all(line.count("# ") >= 1 for line in lines)


def test_the_printed_sources_work_once_uncommented(tmp_path: Path) -> None:
    commented = defaults().partition("# [sources.")[1:]
    text = "".join(commented).replace("\n# ", "\n").removeprefix("# ")
    assert set(tomllib.loads(text)["sources"]) == {"labelbox", "redbrick"}
    settings = loaded(tmp_path, text, {"WEBHOOK_SECRET": "s", "API_KEY": "k"})
    source = settings.sources["redbrick"]
    assert isinstance(source, RedBrickSource)
    assert source.ground_truth_stages == ("END", "Output")


def test_a_token_that_could_never_match_is_a_mistake(tmp_path: Path) -> None:
    text = """
[sources.rb]
platform = "redbrick"
secrets = ["env:HOOK"]
api_key = "env:KEY"
organization = "o"
"""
    environ = {"HOOK": "x" * 513, "KEY": "k"}
    assert mistakes(tmp_path, text, environ) == (
        "sources.rb.secrets[0]: over 512 characters; it never matches",
    )
    assert loaded(tmp_path, text, {**environ, "HOOK": "x" * 512})


BROKER = 'queue = "amqp://groundwire@rabbitmq/"\n[log]\nkey = "env:LOG"\norigin = "o"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'inbox = "sqlite:///x/lake/inbox.db"\nlake = "file:///x/lake"\n{BROKER}', "inside the"),
        ('inbox = "sqlite:///x/q.db"\nqueue = "sqlite:///x/q.db"', "is the queue itself"),
        ('inbox = "sqlite:///x/inbox.db"', "is of no use, since the queue is a file"),
        (f'inbox = "file:///x/inbox.db"\n{BROKER}', "sqlite"),
    ],
)
def test_an_inbox_that_could_not_be_one_is_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    (mistake,) = mistakes(tmp_path, text, {"LOG": "x"})
    assert mistake.startswith("inbox: ")
    assert said in mistake


def test_an_inbox_beside_a_broker_is_understood(tmp_path: Path) -> None:
    settings = loaded(tmp_path, f'inbox = "sqlite:///x/inbox.db"\n{BROKER}', {"LOG": "x"})
    assert settings.inbox is not None
    assert settings.inbox.path == Path("/x/inbox.db")
