"""A RabbitMQ server for tests: the real one, with nothing of the machine's own configuration.

Everything it needs - node name, ports, cookie, data, log - is its own and goes with it, so that it
runs beside an installed broker, as any user, several at once, and without a network.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import write_certificates

READY_WITHIN_S = 60.0
STARTS = 3
HOW_TO_INSTALL = (
    "RabbitMQ is not installed. On Debian or Ubuntu: apt-get install --no-install-recommends "
    "rabbitmq-server (the service itself need not run)."
)


@dataclass(frozen=True, slots=True)
class RabbitServer:
    """A running server; its user is guest, its password guest."""

    port: int
    tls_port: int
    ca: str  # PEM
    folder: Path
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        return f"amqps://guest:guest@localhost:{self.tls_port}/"

    def start(self) -> None:
        """Returns when it takes connections; all that it had synced is there again. Somebody's
        connection may have one of its ports for a moment, so it is tried again."""
        for _ in range(STARTS - 1):
            with contextlib.suppress(RuntimeError):
                self._start()
                return
            self.kill()
        self._start()

    def _start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            server = subprocess.Popen(
                [_program()],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(server)
        _await_greeting(self.port, server, self.folder / "output")

    def kill(self) -> None:
        """As a power cut does, but for what the kernel still writes."""
        _kill_group(self.processes[-1])

    def control(self, *arguments: str) -> None:
        """What an operator says with `rabbitmqctl`; takes a second or two."""
        program = Path(_program()).with_name("rabbitmqctl")
        subprocess.run(
            [str(program), "-q", *arguments],
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=True,
        )


@contextlib.contextmanager
def rabbitmq() -> Iterator[RabbitServer]:
    """Starts a server, waits until it takes connections, and kills it at the end."""
    _program()
    folder = Path(tempfile.mkdtemp(prefix="groundwire-rabbitmq-"))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        port, tls_port, dist_port, epmd_port = _free_ports(4)
        ca = write_certificates(folder)
        _configure(folder, tls_port)
        environment = _environment(folder, port, dist_port, epmd_port)
        processes.append(
            subprocess.Popen(
                [_epmd(), "-port", str(epmd_port)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        server = RabbitServer(port, tls_port, ca, folder, environment, processes)
        server.start()
        yield server
    finally:
        for process in processes:
            _kill_group(process)
        shutil.rmtree(folder, ignore_errors=True)


def _program() -> str:
    """The server itself: the wrapper in the path would insist on its own user and folders."""
    places = ("/usr/lib/rabbitmq/lib", "/usr/local/lib/rabbitmq/lib", "/opt/rabbitmq", "/opt")
    for place in places:
        for pattern in ("rabbitmq_server-*/sbin/rabbitmq-server", "sbin/rabbitmq-server"):
            found = sorted(Path(place).glob(pattern))
            if found:
                return str(found[-1])
    raise RuntimeError(HOW_TO_INSTALL)


def _epmd() -> str:
    found = shutil.which("epmd") or next(map(str, Path("/usr/lib/erlang").glob("**/epmd")), None)
    if found is None:
        raise RuntimeError(HOW_TO_INSTALL)
    return found


def _configure(folder: Path, tls_port: int) -> None:
    (folder / "plugins").write_text("[].\n")
    (folder / "rabbitmq.conf").write_text(
        f"disk_free_limit.absolute = 1MB\n"
        f"listeners.ssl.default = 127.0.0.1:{tls_port}\n"
        f"ssl_options.cacertfile = {folder}/ca.pem\n"
        f"ssl_options.certfile = {folder}/server.pem\n"
        f"ssl_options.keyfile = {folder}/server.key\n"
        f"log.file.level = warning\n"
    )


def _environment(folder: Path, port: int, dist_port: int, epmd_port: int) -> dict[str, str]:
    quiet = "+sbwt none +sbwtdcpu none +sbwtdio none"  # no busy waiting: it starves the tests
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"test-{secrets.token_hex(4)}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            f"-kernel inet_dist_use_interface {{127,0,0,1}} {quiet}"
        ),
    }


def _await_greeting(port: int, server: subprocess.Popen[bytes], output: Path) -> None:
    """Until it answers AMQP's protocol header, not merely accepts."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        if _greets(port):
            return
        time.sleep(0.1)
    text = output.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"RabbitMQ did not start within {READY_WITHIN_S} s:\n{text}")


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(1))
    except OSError:
        return False


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
