"""Signed notes and checkpoints, and the Ed25519 keys behind them.

https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint. Every text has one spelling
only (base64 included), so that a changed byte never goes unnoticed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consumer.errors import Permanent
from consumer.log.merkle import HASH_BYTES

ED25519 = b"\x01"  # signed-note, "Signature types"
MAX_NOTE = 64 * 1024  # bytes
_NAME = re.compile(r"[^\s+]+")
_PRIVATE = "PRIVATE+KEY+"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class BadNote(ValueError):
    """A note, checkpoint or key that is not what it must be; the text says why."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name: what a stranger needs."""

    name: str
    public: bytes  # 32 bytes, RFC 8032

    @property
    def key_id(self) -> bytes:
        """The four bytes that mark this key's signatures."""
        framed = self.name.encode() + b"\n" + ED25519 + self.public
        return hashlib.sha256(framed).digest()[:4]

    @property
    def vkey(self) -> str:
        """``name+hash+base64``, as note tools of other languages read it."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(ED25519 + self.public)}"

    @classmethod
    def from_vkey(cls, text: str) -> Verifier:
        """Raises `BadNote`."""
        name, _, rest = text.strip().partition("+")
        _, _, encoded = rest.partition("+")
        raw = _raw(encoded)
        if raw[:1] != ED25519 or len(raw) != 33 or not _NAME.fullmatch(name):
            raise BadNote("that is no Ed25519 verifier key of the form name+hash+base64")
        verifier = cls(name, raw[1:])
        if verifier.vkey != text.strip():
            raise BadNote("the verifier key's hash is not the key's")
        return verifier

    def open(self, note: bytes) -> str:
        """The text of a note that this key has signed. Raises `BadNote` otherwise."""
        text, signatures = split_note(note)
        ours = [raw for name, raw in signatures if name == self.name and raw[:4] == self.key_id]
        if not ours:
            raise BadNote(f"no signature by {self.name}+{self.key_id.hex()}")
        for raw in ours:
            self.check(text, _base64(raw))
        return text

    def check(self, text: str, signature: str) -> None:
        """Raises `BadNote` unless ``signature`` is `Signer.signature` of the text."""
        raw = _raw(signature)
        public = Ed25519PublicKey.from_public_bytes(self.public)
        try:
            public.verify(raw[4:], text.encode())
        except InvalidSignature:
            raise BadNote(f"the signature by {self.name} does not fit the text") from None
        if raw[:4] != self.key_id:
            raise BadNote(f"the signature is not marked as one by {self.name}")


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its name. Its repr does not show the key."""

    verifier: Verifier
    _key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"Signer({self.verifier.vkey})"

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Signer:
        if not _NAME.fullmatch(name):
            raise BadNote("a key's name is not empty and has neither spaces nor '+'")
        key = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(Verifier(name, key.public_key().public_bytes_raw()), key)

    @classmethod
    def from_text(cls, text: str) -> Signer:
        """From the text of a key file; raises `BadNote`, which never quotes it."""
        body = text.strip()
        parts = body.removeprefix(_PRIVATE).split("+", 2)
        raw = _raw(parts[2]) if body.startswith(_PRIVATE) and len(parts) == 3 else b""
        if raw[:1] != ED25519 or len(raw) != 33:
            raise BadNote("that is no Ed25519 signing key of the form PRIVATE+KEY+name+hash+base64")
        signer = cls.from_seed(parts[0], raw[1:])
        if signer.verifier.key_id.hex() != parts[1]:
            raise BadNote("the signing key's hash is not the key's")
        return signer

    @property
    def text(self) -> str:
        """What a key file holds. Secret."""
        name, mark = self.verifier.name, self.verifier.key_id.hex()
        return f"{_PRIVATE}{name}+{mark}+{_base64(ED25519 + self._key.private_bytes_raw())}"

    def sign(self, text: str) -> bytes:
        """The note of a text, which must end in a newline; the same text gives the same bytes."""
        if not text.endswith("\n") or _CONTROL.search(text):
            raise BadNote("a note's text ends in a newline and has no control characters")
        return f"{text}\n— {self.verifier.name} {self.signature(text)}\n".encode()

    def signature(self, text: str) -> str:
        """base64 of the key's id and its signature of a text of any kind."""
        return _base64(self.verifier.key_id + self._key.sign(text.encode()))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: whose log, how many entries, which root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Raises `BadNote`; extension lines are refused, for this log writes none."""
        lines = text.split("\n")
        if len(lines) != 4 or not lines[0] or not re.fullmatch(r"0|[1-9]\d{0,18}", lines[1]):
            raise BadNote("a checkpoint has three lines: origin, size, root")
        checkpoint = cls(lines[0], int(lines[1]), _raw(lines[2]))
        if len(checkpoint.root) != HASH_BYTES or checkpoint.text != text:
            raise BadNote("the checkpoint's root is no hash")
        return checkpoint


def split_note(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """A note's text and its signatures (key's name, key id and signature), none of them checked.

    Raises `BadNote`.
    """
    if len(note) > MAX_NOTE:
        raise BadNote("the note is too long")
    try:
        decoded = note.decode()
    except UnicodeDecodeError:
        raise BadNote("the note is not UTF-8") from None
    text, blank, rest = decoded.rpartition("\n\n")
    if not blank or not rest.endswith("\n") or _CONTROL.search(decoded):
        raise BadNote("a note is a text, an empty line and signatures")
    return text + "\n", [_signature(line) for line in rest[:-1].split("\n")]


def read_checkpoint(note: bytes, verifier: Verifier | None = None) -> Checkpoint:
    """A signed checkpoint; without a verifier its signature is not looked at. Raises `BadNote`."""
    return Checkpoint.from_text(verifier.open(note) if verifier else split_note(note)[0])


def new_key(path: Path, name: str) -> Signer:
    """Makes a key and writes it to a new file that only its owner can read.

    Raises ``Permanent`` when there is a file already: a key is never replaced.
    """
    signer = Signer.from_seed(name, os.urandom(32))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        message = f"{path} exists already; a key is never written over. Choose another file."
        raise Permanent("key-exists", message) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(signer.text + "\n")
        file.flush()
        os.fsync(descriptor)
    return signer


def load_key(path: Path) -> Signer:
    """The signing key in a file. Raises ``Permanent`` with what to do."""
    try:
        return Signer.from_text(path.read_text())
    except OSError as error:
        message = f"The signing key {path} cannot be read ({error.strerror}); set [log] key."
        raise Permanent("key-unreadable", message) from None
    except ValueError as error:
        raise Permanent("key-malformed", f"{path}: {error}") from None


def show_key(path: Path) -> str:
    """The public half of a key file, for ``verify --key``. Raises ``Permanent``."""
    return load_key(path).verifier.vkey


def _signature(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    raw = _raw(encoded)
    if dash != "—" or not _NAME.fullmatch(name) or len(raw) < 5:
        raise BadNote("a signature line is: dash, key's name, base64")
    return name, raw


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _raw(encoded: str) -> bytes:
    """Decodes base64 and refuses every spelling but the one that encoding gives."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("that is not base64") from None
    if _base64(raw) != encoded:
        raise BadNote("the base64 has stray bits at its end")
    return raw
