"""The target ``command``: a program on this machine, with the CloudEvent as its standard input.

Exit code 0 means that it began (or did its work). 75, sysexits.h's EX_TEMPFAIL, and every other
code mean: again later; only a program that cannot be run at all is for a person. What it prints is
kept nowhere, as it may be anything: a command whose output matters writes it to a file.

It has a process group of its own. Unless it has ended with 0, all of the group is ended with it:
SIGTERM, and SIGKILL after ``grace_s``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress

from consumer.errors import Permanent, Transient
from handlers.targets.trigger import Fired, Trigger

EX_TEMPFAIL = 75
PREFIX = "GROUNDWIRE_"

_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")  # of our environment; the rest may hold secrets
_BUSY = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})
_LOOK_S = 0.02  # how often it is looked whether a group is gone


class CommandTarget:
    """Implements ``Target``. ``command`` is program and arguments; no shell reads them.

    Its environment is PATH, HOME, LANG and TMPDIR of ``environ``, and each of the trigger's
    fields but the event as ``GROUNDWIRE_`` and its name.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        timeout_s: float,
        grace_s: float = 10.0,
    ) -> None:
        self._command = tuple(command)
        self._environ = {name: environ[name] for name in _KEPT if name in environ}
        self._timeout_s = timeout_s
        self._grace_s = grace_s

    async def fire(self, trigger: Trigger) -> Fired:
        starting = asyncio.ensure_future(self._started(trigger))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:  # there it is all the same, with what it has started
            with suppress(Transient, Permanent):
                await _end(await starting, self._grace_s)
            raise
        done = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.communicate(trigger.body())
            done = process.returncode == 0
        except TimeoutError:
            said = f"the command had not ended after {self._timeout_s:g} s, and was ended"
            raise Transient("command-timeout", said) from None
        finally:
            if not done:
                await _end(process, self._grace_s)
        if process.returncode == EX_TEMPFAIL:
            raise Transient("command-busy", "the command asks to be tried again (exit code 75)")
        if process.returncode != 0:
            raise Transient("command-failed", f"the command ended with {_how(process)}")
        return Fired()

    async def _started(self, trigger: Trigger) -> Process:
        fields = {k: v for k, v in trigger.fields().items() if k != "event"}
        told = {PREFIX + name.upper(): value for name, value in fields.items()}
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=DEVNULL,
                env={**self._environ, **told},
                start_new_session=True,
            )
        except OSError as error:
            said = f"the command cannot be run: {os.strerror(error.errno or 0)}"
            if error.errno in _BUSY:
                raise Transient("command-busy", said) from None
            raise Permanent("command-missing", said) from None
        except ValueError:  # a NUL
            raise Permanent("command-missing", "the command cannot be run as written") from None


async def _end(process: Process, grace_s: float) -> None:
    """Ends the process and what it has started; cancelled meanwhile, it does so at once."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    try:
        _signal(process, signal.SIGTERM)
        while _signal(process, 0) and loop.time() < deadline:  # noqa: ASYNC110 - nobody tells it
            await asyncio.sleep(_LOOK_S)
    finally:
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: Process, number: int) -> bool:
    """Whether there was anybody to be told; 0 only asks."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
        return True
    return False


def _how(process: Process) -> str:
    code = process.returncode or 0
    return f"exit code {code}" if code > 0 else f"signal {-code}"
