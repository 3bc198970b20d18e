"""What no log line may hold, however it is spelled; and that looking for it takes no time."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from consumer.cli_shared import Screen, escape
from consumer.redact import GONE, MAX_TEXT, Redactor, printable

SECRET = "se/cr+et=val ue"


@pytest.mark.parametrize(
    "text",
    [
        "see jürgen.müller@kliniküm.example", "ann@a.b-c.example.org", "<ann%40clinic.example.org>",
        "mailto:ann@clinic.example,bob@clinic.example", "https://h/users/ann%40clinic.example.org",
        "ann\u200b@clinic.example.org", "o'ann@clinic.example.org",
    ],
)  # fmt: skip
def test_an_e_mail_is_taken_out_in_any_alphabet_and_spelling(text: str) -> None:
    said = Redactor().text(text)
    assert "[e-mail]" in said
    assert "clinic.example" not in said
    assert "ann" not in said
    assert "müller" not in said


@pytest.mark.parametrize(
    "text",
    [
        "https://h/a?x=canary", "https://h/a?canary", "https://user:canary@h/a", "s3://b/k?v=canary",
        "https://u@v:canary@h/a", "see(https://h/a?b=canary)", "'https://h/a?b=canary'",
        "/hooks/redbrick?token=canary", "GET /a/b?c=d&e=canary HTTP/1.1", "labelbox_token=canary1",
        "X-Api-Key: canary", "hook_secret = 'canary'", "Basic Y2FuYXJ5OmNhbmFyeQcanary",
        "https://h/a?b=c?d=canary", "HTTPS://H/A?B=canary", "1http://h/a?b=canary",
    ],
)  # fmt: skip
def test_a_query_a_password_or_a_named_value_is_taken_out(text: str) -> None:
    assert "canary" not in Redactor().text(text)


@pytest.mark.parametrize(
    "spelled",
    [SECRET, quote(SECRET), quote(SECRET, safe=""), quote(SECRET, safe="").lower(), f"x{SECRET}y"],
)
def test_a_known_secret_is_taken_out_as_it_stands_in_urls_too(spelled: str) -> None:
    assert spelled not in Redactor([SECRET]).text(f"at {spelled} end")
    learned = Redactor()
    learned.learn(SECRET)
    assert GONE in learned.text(f"at {spelled} end")


def test_a_secret_as_json_holds_it_is_taken_out() -> None:
    assert "qu" not in Redactor(['qu"ote\\d']).text('{"a": "qu\\"ote\\\\d"}')


@pytest.mark.parametrize("hidden", [SECRET, "ann@clinic.example.org", "https://h/a?b=canary"])
def test_what_is_cut_is_not_cut_into_what_nobody_recognises(hidden: str) -> None:
    for before in range(MAX_TEXT - 40, MAX_TEXT + 1):
        said = Redactor([SECRET]).text("x " * (before // 2) + hidden + " y" * MAX_TEXT)
        assert not any(part in said for part in ("se/c", "ann", "canary"))
        assert len(said) <= MAX_TEXT + 3


@pytest.mark.parametrize("code", [
    *range(0x20), 0x7F, 0x85, 0x9B, 0xAD, 0x61C, 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0x202A,
    0x202E, 0x2066, 0x2069, 0xFEFF, 0xD800, 0xDFFF, 0xE0041,
])  # fmt: skip
def test_no_character_that_does_something_to_a_reader_is_left(code: int) -> None:
    text = f"before {chr(code)}[2J after"
    assert chr(code) not in Redactor().text(text)
    assert chr(code) not in Redactor().value({f"k{chr(code)}": [text]}).__str__()
    assert chr(code) not in printable(text)
    assert chr(code) not in escape(text)


def test_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    said = Redactor().field("exception", "Traceback\n  ValueError: \x1b[31mred\r\n")
    assert said == "Traceback\n  ValueError: \ufffd[31mred\ufffd\n"
    assert "\n" not in Redactor().field("event", "one\ntwo")


def test_letters_of_every_alphabet_stay() -> None:
    text = "Größe 大小 размер حجم שלום é \N{GRINNING FACE}"
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "a", "a@", "a.", "a@a.", "token", "token-", "token ", "token=", "http", "http:", "://", "a://",
        "a://b", "/", "/?", "/a?", "?", "eyJ", "eyJ-", "eyJaaaaaaaa-", "eyJaaaaaaaa.", "bearer ",
        "bearer", "sha256=", "-", "%", "%40", "a%40", "@a.a", "\x00", "'", " ", "api-key", "\ufffd",
    ],
)  # fmt: skip
def test_no_text_makes_it_slow(piece: str) -> None:
    """It was up to two seconds for a text of 8,192 characters, with the loop standing still."""
    redactor, text = Redactor([SECRET]), piece * (MAX_TEXT // len(piece)) + " "
    assert _quickest_s(redactor, text) < 0.25


def _quickest_s(redactor: Redactor, text: str) -> float:
    took = []
    for _ in range(3):
        began = time.process_time()
        redactor.text(text)
        took.append(time.process_time() - began)
    return min(took)


def test_a_console_obeys_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(soft_wrap=True, highlight=False)
    screen.print(escape("task [red]x[/red]\nok  forged line \x1b[2J \x9b31m \u202egnp.exe"))
    said = capsys.readouterr().out
    assert said.startswith("task [red]x[/red]\ufffdok  forged line")
    assert not set(said) & {"\x1b", "\x9b", "\u202e"}
    screen.print("raw \x1b]0;title\x07", markup=False)
    assert "\x1b" not in capsys.readouterr().out
