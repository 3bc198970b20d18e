"""Signed notes against the vectors of Go's sumdb/note, whose format this is."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from consumer.errors import Permanent
from consumer.log.note import (
    BadNote,
    Checkpoint,
    Signer,
    Verifier,
    load_key,
    new_key,
    read_checkpoint,
    show_key,
)

# golang.org/x/mod/sumdb/note, the package's own example
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NOTE = (
    f"{TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqf"
    "qdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def test_signing_gives_the_published_note() -> None:
    assert Signer.from_text(SKEY).sign(TEXT) == NOTE


def test_a_signing_key_has_the_published_verifier_key() -> None:
    assert Signer.from_text(SKEY).verifier.vkey == VKEY


def test_the_published_note_opens_with_the_published_key() -> None:
    assert Verifier.from_vkey(VKEY).open(NOTE) == TEXT


def test_no_byte_of_a_note_can_change() -> None:
    verifier = Verifier.from_vkey(VKEY)
    for place in range(len(NOTE)):
        changed = bytearray(NOTE)
        changed[place] ^= 1
        with pytest.raises(BadNote):
            verifier.open(bytes(changed))


def test_stray_bits_at_the_end_of_base64_are_refused() -> None:
    with pytest.raises(BadNote, match="stray bits"):
        Verifier.from_vkey(VKEY).open(NOTE.replace(b"BwJnAM=", b"BwJnAN="))


def test_no_character_of_a_verifier_key_can_change() -> None:
    for place in range(len(VKEY)):
        changed = VKEY[:place] + chr(ord(VKEY[place]) ^ 1) + VKEY[place + 1 :]
        with pytest.raises(BadNote):
            Verifier.from_vkey(changed)


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    other = Signer.from_seed("witness", bytes(32)).sign(TEXT).split(b"\n\n")[1]
    assert Verifier.from_vkey(VKEY).open(NOTE + other) == TEXT


def test_a_note_without_our_signature_does_not_open() -> None:
    with pytest.raises(BadNote, match="no signature by PeterNeumann"):
        Verifier.from_vkey(VKEY).open(Signer.from_seed("PeterNeumann", bytes(32)).sign(TEXT))


def test_a_note_over_its_limit_is_refused() -> None:
    with pytest.raises(BadNote, match="too long"):
        Verifier.from_vkey(VKEY).open(b"x" * 70_000)


def test_a_checkpoint_reads_back() -> None:
    signer = Signer.from_seed("example.org/log", bytes(32))
    checkpoint = Checkpoint("example.org/log", 70_000, bytes(range(32)))
    note = signer.sign(checkpoint.text)
    assert read_checkpoint(note, signer.verifier) == checkpoint
    assert note.startswith(b"example.org/log\n70000\nAAECAw")


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        "o\n01\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n-1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\n",
        "o\n1\nAAEC\n",
        "\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n1\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nmore\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        Checkpoint.from_text(text)


def test_a_new_key_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "log.key"
    signer = new_key(path, "example.org/log")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path).verifier == signer.verifier
    assert show_key(path) == signer.verifier.vkey


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    new_key(path, "a")
    before = path.read_bytes()
    with pytest.raises(Permanent, match="exists already"):
        new_key(path, "b")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "hello", VKEY, SKEY[:-4], SKEY.replace("c74f20a3", "c74f20a4")]
)
def test_a_file_that_is_no_key_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.key"
    path.write_text(text)
    with pytest.raises(Permanent) as caught:
        load_key(path)
    assert caught.value.reason == "key-malformed"
    assert "AYEKFA" not in str(caught.value)


def test_a_missing_key_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"set \[log\] key"):
        load_key(tmp_path / "none")


def test_a_signer_does_not_show_its_key() -> None:
    assert "AYEKFA" not in repr(Signer.from_text(SKEY))


def test_a_name_with_a_space_or_plus_makes_no_key() -> None:
    for name in ("", "a b", "a+b"):
        with pytest.raises(BadNote):
            Signer.from_seed(name, bytes(32))
