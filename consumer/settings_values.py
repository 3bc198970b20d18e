"""The values that settings are made of: secrets, addresses, places; each refuses what it is not.

A refusal never repeats what was given: it may have been a secret in the wrong place.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)

MAX_SECRET_BYTES = 8192
OWN_FOLDER = "groundwire-data"


class Section(BaseModel):
    """A table of the file: frozen, and nothing but its keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A secret by reference (``env:NAME`` or ``file:PATH``); its text is never shown."""

    reference: str
    _value: str

    def reveal(self) -> str:
        return self._value

    @property
    def path(self) -> Path | None:
        """The file that holds it, if one does."""
        kind, _, name = self.reference.partition(":")
        return Path(name) if kind == "file" else None

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """A queue or a lake by its URL.

    ``file:`` and ``sqlite:`` URLs name paths: what follows three slashes is absolute, as RFC 8089
    has it, but for our own folder ``groundwire-data``, which lies in the working directory;
    ``file:PATH`` is relative too.
    """

    url: str

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0]

    @property
    def path(self) -> Path:
        """Of a ``file:`` or ``sqlite:`` URL, absolute."""
        rest = unquote(self.url.partition(":")[2])
        if rest.startswith("//"):
            host, slash, rest = rest[2:].partition("/")
            rest = rest if host in ("", "localhost") else f"{host}/{rest}"
            own = rest.lstrip("/").split("/")[0] == OWN_FOLDER
            absolute = bool(slash) and host in ("", "localhost") and not own
            rest = "/" + rest.lstrip("/") if absolute else rest
        return Path(rest).absolute()

    @property
    def bucket(self) -> tuple[str, str]:
        """Bucket and prefix of an ``s3:`` URL; the prefix has no slash at its ends."""
        parts = urlsplit(self.url)
        return parts.netloc, parts.path.strip("/")

    @property
    def password(self) -> str | None:
        return urlsplit(self.url).password

    @property
    def shown(self) -> str:
        """For a person: the path, or the URL."""
        return str(self.path if self.scheme in ("file", "sqlite") else self)

    def __str__(self) -> str:
        """The URL without password and query."""
        if self.scheme in ("file", "sqlite"):
            return self.url
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    __repr__ = __str__


def read_secret(reference: Any, info: ValidationInfo) -> Secret:
    """The secret that ``env:NAME`` or ``file:PATH`` names; ``ValueError`` says what is wrong.

    The environment is the validation context.
    """
    if isinstance(reference, Secret):
        return reference
    kind, _, name = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if kind == "env" and name:
        value = (info.context or {}).get(name)
        if value is None:
            raise ValueError(f"environment variable {name} is not set")
        value = value.strip()
    elif kind == "file" and name:
        value = read_secret_file(Path(name))
    else:
        raise ValueError("write env:NAME or file:PATH, not the secret itself")
    if not value:
        raise ValueError(f"{kind}:{name} is empty")
    if not value.isprintable():
        raise ValueError(f"{kind}:{name} holds more than one line or control characters")
    return Secret(reference, value)


def read_secret_file(path: Path) -> str:
    """The text of a secret's file; ``ValueError`` says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"file {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_SECRET_BYTES:
        raise ValueError(f"file {path} holds more than {MAX_SECRET_BYTES} bytes")
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"file {path} is not text") from error


def read_address(text: Any) -> Address:
    """``host:port``; an IPv6 address stands in brackets."""
    if isinstance(text, Address):
        return text
    host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('must be "host:port", such as "127.0.0.1:8080"')
    host = host.removeprefix("[").removesuffix("]")
    return Address(host or "0.0.0.0", int(port))  # noqa: S104 - what ":8080" means everywhere


def place(*schemes: str) -> PlainValidator:
    """Accepts URLs of these schemes only."""

    def read(url: Any) -> Place:
        if isinstance(url, Place):
            return url
        text = url if isinstance(url, str) else ""
        scheme, colon, rest = text.partition(":")
        if not colon or scheme not in schemes or not rest.strip("/"):
            raise ValueError(f"must be a URL that begins with {' or '.join(schemes)} and a colon")
        try:
            known = scheme not in ("amqp", "amqps", "s3") or urlsplit(text).hostname
        except ValueError:
            known = None
        if not known:
            raise ValueError("the URL names no host" if scheme != "s3" else "names no bucket")
        return Place(text)

    return PlainValidator(read)


def read_network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError("must be an address or a network, such as 10.0.0.0/8") from error


def read_http_url(url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        good = parts.scheme in ("http", "https") and parts.hostname and not parts.username
    except ValueError:
        good = False
    if not good or not isinstance(url, str):
        raise ValueError("must be a URL that begins with https:// (or http://)")
    return url


def split_names(value: Any) -> Any:
    """``a,b`` from the environment is the list of a and b."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


_AS_TEXT = PlainSerializer(str, return_type=str)

SecretValue = Annotated[
    Secret,
    PlainValidator(read_secret),
    PlainSerializer(lambda secret: secret.reference, return_type=str),
]
AddressValue = Annotated[Address, PlainValidator(read_address), _AS_TEXT]
QueuePlace = Annotated[Place, place("sqlite", "amqp", "amqps"), _AS_TEXT]
InboxPlace = Annotated[Place, place("sqlite"), _AS_TEXT]
LakePlace = Annotated[Place, place("file", "s3"), _AS_TEXT]
Network = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network, PlainValidator(read_network), _AS_TEXT
]
HttpUrl = Annotated[str, PlainValidator(read_http_url)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
When = Literal["always", "ground-truth"]
