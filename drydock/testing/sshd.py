"""A real ssh server on loopback for tests, on a machine that has Python and an ssh client, and nothing else.

The server is `asyncssh`, which the `dev` extra brings, in a process of its own. It treats a command as OpenSSH's does: a
session of its own for each, `sh -c` around it, and nothing that happens to the command when its client goes away.
`DRYDOCK_TEST_SSHD` chooses OpenSSH's own instead: the path of the program, such as /usr/sbin/sshd.
"""

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreError
from ..interfaces import Ssh
from .supervised import LOOPBACK, Served, Supervised, free_port

if TYPE_CHECKING:
    from asyncssh import SSHServerProcess

SETTING = "DRYDOCK_TEST_SSHD"
SECONDS_TO_START = 60.0
CHUNK = 65_536

#: what stands between the server and a command, as OpenSSH's session process does: it dies with the connection
SESSION = """
import os, signal, sys
pid = os.fork()
if pid == 0:
    os.setsid()
    os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])
for fd in (0, 1, 2):
    os.close(fd)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
"""
OPENSSH = """
ListenAddress {address}
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 1000
MaxSessions 1000
LogLevel ERROR
Subsystem sftp internal-sftp
"""


class Sshd(Served):
    """The server. It lets in whoever runs the tests, with the key `identity_file`, and is known to `known_hosts`.

    As a context manager it ends with the block; when this process ends, however it does, the server ends and its folder
    goes. `program`: OpenSSH's server; "": ours; None: as `DRYDOCK_TEST_SSHD` says.
    """

    def __init__(self, *, program: str | None = None) -> None:
        client = shutil.which("ssh")
        maker = shutil.which("ssh-keygen")
        if client is None or maker is None:
            raise StoreError("there is no ssh client: install the package openssh-client of your system")
        self.address, self.user = LOOPBACK, getpass.getuser()
        self.folder = Path(tempfile.mkdtemp(prefix="drydock-ssh-"))
        self.identity_file, self.known_hosts = self.folder / "key", self.folder / "known_hosts"
        self._keygen = maker
        try:
            self._new_key("key")
            self._new_key("host_key")
            self.port = free_port()
            self.trust()
            program = os.environ.get(SETTING, "") if program is None else program
            self._supervised = Supervised(self.folder, "", self._openssh(program) if program else self._ours())
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def settings(self) -> dict[str, str]:
        """The setting `ssh` of a host pool, as a pool file says it."""
        return {"user": self.user, "identity_file": str(self.identity_file), "known_hosts": str(self.known_hosts)}

    def interface(self, folder: str = "") -> Ssh:
        return Ssh(self.address, self.port, folder=folder, **self.settings)

    def start(self) -> None:
        """Start it again, where it was; when this returns, it answers."""
        self._supervised.start()
        self._supervised.wait_until(self._answers, SECONDS_TO_START, "the ssh server for tests")

    def stop(self) -> None:
        """Stop it; when this returns, nobody listens there."""
        self._supervised.stop(signal.SIGTERM)

    def trust(self) -> None:
        """Write its host key as the one that is known."""
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{LOOPBACK}]:{self.port} {kind} {key}\n")

    def change_host_key(self) -> None:
        """From now on it has another host key, which nobody knows."""
        self.stop()
        self._new_key("host_key")
        self.start()

    def close(self) -> None:
        self._supervised.close()

    def _ours(self) -> list[str]:
        return [sys.executable, "-P", "-m", "drydock.testing.sshd", str(self.folder), str(self.port)]

    def _openssh(self, program: str) -> list[str]:
        configuration = self.folder / "sshd_config"
        configuration.write_text(OPENSSH.format(address=LOOPBACK, port=self.port, folder=self.folder))
        return [program, "-D", "-e", "-f", str(configuration)]

    def _new_key(self, name: str) -> None:
        for file in (self.folder / name, self.folder / f"{name}.pub"):
            file.unlink(missing_ok=True)
        subprocess.run(
            [self._keygen, "-q", "-t", "ed25519", "-N", "", "-C", "drydock", "-f", str(self.folder / name)],
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip

    def _answers(self) -> bool:
        with socket.socket() as tried:
            tried.settimeout(1)
            if tried.connect_ex((LOOPBACK, self.port)) != 0:
                return False
            with contextlib.suppress(OSError):
                return tried.recv(4) == b"SSH-"
        return False


# ---- the server's own process


async def serve(folder: Path, port: int) -> None:
    import asyncssh

    sessions: set[asyncio.subprocess.Process] = set()

    async def session(process: "SSHServerProcess[bytes]") -> None:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", SESSION, process.command or "exec sh",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=Path.home(),
        )  # fmt: skip
        sessions.add(started)
        try:
            await answer(process, started)
        finally:  # the connection is gone, or all was said
            with contextlib.suppress(ProcessLookupError):
                started.kill()
            await started.wait()
            sessions.discard(started)

    class OneUser(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.connection = conn

        def begin_auth(self, username: str) -> bool:
            if username != getpass.getuser():
                self.connection.set_authorized_keys(asyncssh.import_authorized_keys(""))
            return True

    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await asyncssh.listen(
        LOOPBACK, port, reuse_address=True, server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "key.pub"), process_factory=session, encoding=None,
        server_factory=OneUser, compression_algs=None,
    )  # fmt: skip
    await ended.wait()
    server.close()
    for one in sessions:
        with contextlib.suppress(ProcessLookupError):
            one.kill()


async def answer(process: "SSHServerProcess[bytes]", started: asyncio.subprocess.Process) -> None:
    """Hand on what both say, then tell how the command ended."""
    import asyncssh

    assert started.stdin is not None

    async def take(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            while data := await process.stdin.read(CHUNK):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def give(reader: asyncio.StreamReader | None, channel: "asyncssh.SSHWriter[bytes]") -> None:
        while reader and (data := await reader.read(CHUNK)):
            channel.write(data)
            await channel.drain()

    async def work() -> None:
        await asyncio.gather(give(started.stdout, process.stdout), give(started.stderr, process.stderr))
        code = await started.wait()
        if code < 0:
            process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        else:
            process.exit(code)

    tasks = [asyncio.create_task(one) for one in (take(started.stdin), work(), process.wait_closed())]
    await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
