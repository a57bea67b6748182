"""Three machines share one store: what becomes of a lease when one is cut off, loses a process, stops, or vanishes?

The machines are network namespaces of this one, on a bridge, each with a state folder of its own, so that no lock of
the kernel's tells one about the processes of another. A fourth has the PostgreSQL server, and the bridge. What is
promised is that a command is stopped before anybody else is granted what it uses. Both moments are of one clock, this
machine's, which is the server's as well; the difference between them is printed as the margin.

Needs root and `ip`. All that it makes goes when it ends. Exit code 0: every promise was kept; 1: one was not; 9: it
cannot be tried here.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from drydock.model import Lease, LeaseStatus
from drydock.store import open_store
from drydock.store.postgres import LIFE_SECONDS
from drydock.testing import stubborn

NETWORK = "10.77.0"
SERVER = f"{NETWORK}.9"
REFUSED = 9
PATIENCE_SECONDS = 120.0
POOL = '[blueprint.one]\nkind = "host-pool"\nhosts = ["h1"]\n[blueprint.three]\nkind = "host-pool"\nhosts = ["a", "b", "c"]\n'

HOST = """
import sys
from drydock.testing.postgres import PostgresServer
with PostgresServer(listen="*") as server:
    url = server.new_database()
    name = url.partition("?")[0].rpartition("/")[2]
    print(url, server.url(name, host=sys.argv[1]), flush=True)
    sys.stdin.read()
"""


class Machine:
    """One namespace, with its wire to the bridge."""

    def __init__(self, lab: "Lab", number: int) -> None:
        self.lab, self.number, self.name = lab, number, f"{lab.prefix}-m{number}"
        self.folder = lab.folder / f"m{number}"
        self.folder.mkdir()
        self.wire = f"w{number}"
        ip("netns", "add", self.name)
        ip("-n", lab.hub, "link", "add", self.wire, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("-n", self.name, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.name, "link", "set", device, "up")
        ip("-n", lab.hub, "link", "set", self.wire, "master", "bridge0", "up")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Run drydock there."""
        return self.lab.start(self.name, ["-m", "drydock", *arguments], self.folder)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def cut(self, how: str) -> None:
        """From now on every packet is dropped and nobody is told; with "cable", the machine sees that its wire is dead."""
        ip("-n", self.lab.hub, "link", "set", self.wire, *(["down"] if how == "cable" else ["nomaster"]))

    def mend(self) -> None:
        ip("-n", self.lab.hub, "link", "set", self.wire, "master", "bridge0", "up")

    def kill_all(self) -> None:
        """SIGKILL to whatever runs there."""
        for pid in ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


class Lab:
    """The server, the bridge and the machines. As a context manager it goes with the block."""

    def __init__(self, machines: int = 3) -> None:
        self.prefix = f"drydock-{os.getpid()}"
        self.hub = f"{self.prefix}-hub"
        self.folder = Path(tempfile.mkdtemp(prefix="drydock-machines-"))
        self.started: list[subprocess.Popen[str]] = []
        self.url = ""
        try:
            ip("netns", "add", self.hub)
            ip("-n", self.hub, "link", "add", "bridge0", "type", "bridge")
            ip("-n", self.hub, "address", "add", f"{SERVER}/24", "dev", "bridge0")
            for device in ("lo", "bridge0"):
                ip("-n", self.hub, "link", "set", device, "up")
            self.machines = [Machine(self, number) for number in range(1, machines + 1)]
            host = self.start(self.hub, ["-c", HOST, SERVER], self.folder)
            assert host.stdout is not None
            told = host.stdout.readline().split()
            assert told, "the server did not start"
            here, self.url = told
            self.observer = open_store(here)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, namespace: str, arguments: list[str], state: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "XDG_STATE_HOME": str(state), "DRYDOCK_STORE": self.url}, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        # The first that was started is the server's host: it ends the server when its input ends, and needs time for it.
        for process in self.started[1:]:
            if process.poll() is None:
                process.kill()
        for process in self.started[:1]:
            with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
                process.communicate(timeout=60)
        for name in names(self.prefix):
            for pid in ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", name)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what can be seen from above

    def holder(self) -> Lease | None:
        """Who holds the one host."""
        return next((lease for lease in self.observer.leases.live() if lease.status is LeaseStatus.ACTIVE), None)

    def until_free(self) -> None:
        for machine in self.machines:
            machine.mend()
        wait(lambda: not self.observer.leases.live(), "all is given back")


class Held:
    """`drydock run` of a stubborn command on a machine, and the moments that it writes down."""

    def __init__(self, machine: Machine, *options: str) -> None:
        self.file = machine.folder / "moments"
        self.file.unlink(missing_ok=True)
        command = [sys.executable, "-c", stubborn.CODE, str(self.file)]
        self.run = machine.start("run", "--blueprint", "one", "--type", "host", *options, "--", *command)
        wait(self.file.exists, "the command runs")
        lease = machine.lab.holder()
        assert lease is not None
        self.lease = lease

    def moments(self, word: str) -> list[float]:
        return stubborn.moments(self.file, word)

    @property
    def guard(self) -> int:
        return stubborn.guard_of(self.run.pid)


class Waiter:
    """`drydock run` that waits for the same host on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.lab = machine.lab
        before = {lease.id for lease in self.lab.observer.leases.live()}
        self.run = machine.start("run", "--blueprint", "one", "--type", "host", "--wait", "110s", "--", "sleep", "0.01")

        def waits() -> bool:
            new = [lease.id for lease in self.lab.observer.leases.live() if lease.id not in before]
            self.id = new[0] if new else 0
            return bool(new)

        wait(waits, "the waiter waits")

    def granted_at(self) -> float:
        """The server's clock when the transaction that granted it began."""
        _, err = self.run.communicate(timeout=PATIENCE_SECONDS)
        lease = self.lab.observer.leases.get(self.id)
        assert lease is not None, err
        assert lease.granted_at is not None, err
        return lease.granted_at


class Report:
    """One JSON line for each thing that was tried."""

    def __init__(self) -> None:
        self.broken = 0

    def __call__(self, tried: str, kept: bool, **figures: Any) -> None:
        self.broken += not kept
        shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
        print(json.dumps({"tried": tried, "kept": kept, **shown}), flush=True)


def everyday(lab: Lab, report: Report) -> None:
    """`lease` and `run` on each machine: three things, and nobody has what another has."""
    leases = [
        json.loads(machine.run("lease", "--blueprint", "three", "--type", "host", "--json").stdout)
        for machine in lab.machines
    ]
    names = [lease["resource"]["name"] for lease in leases]
    refused = lab.machines[0].run("lease", "--blueprint", "three", "--type", "host", "--no-wait").returncode
    for machine, lease in zip(reversed(lab.machines), leases, strict=True):
        machine.run("release", str(lease["id"]), "--fence", str(lease["fence"]))
    runs = [m.start("run", "--blueprint", "three", "--type", "host", "--", "sh", "-c", "echo $DRYDOCK_NAME; read x") for m in lab.machines]  # fmt: skip
    held = [run.stdout.readline().strip() for run in runs if run.stdout]
    codes = []
    for run in runs:
        run.communicate("\n", timeout=PATIENCE_SECONDS)
        codes.append(run.returncode)
    kept = set(names) == set(held) == {"a", "b", "c"} and refused == 3 and codes == [0, 0, 0]
    report("lease and run on three machines", kept, leased=names, run=held)


def cut_off(lab: Lab, report: Report, how: str, *options: str) -> None:
    """The wire of the holder's machine is cut; somebody waits elsewhere."""
    first, second, _ = lab.machines
    held, waiter = Held(first, *options), Waiter(second)
    first.cut(how)
    cut_at = time.time()
    granted_at = waiter.granted_at()
    last, asked = held.moments("lives")[-1], held.moments("asked")
    try:
        held.run.wait(30)
        code: int | str = held.run.returncode
    except subprocess.TimeoutExpired:
        code = "has not ended"
    alone_at = time.time()
    first.mend()
    told = held.run.communicate(timeout=PATIENCE_SECONDS)[1]
    fence = str(held.lease.fence)
    late = {
        verb: first.run(verb, str(held.lease.id), "--fence", fence).returncode
        for verb in ("verify", "renew", "release")
    }
    report(
        f"cut off ({how}{' ' if options else ''}{' '.join(options)})",
        last < granted_at and held.run.returncode == 124 and set(late.values()) == {4} and bool(asked),
        margin_seconds=granted_at - last,
        asked_after_seconds=asked[0] - cut_at if asked else None,
        stopped_after_seconds=last - cut_at,
        granted_after_seconds=granted_at - cut_at,
        run_ended_after_seconds=alone_at - cut_at,
        exit_code_of_run_before_the_wire_is_back=code,
        exit_codes_afterwards=late,
        said=told.strip().splitlines(),
    )


def killed(lab: Lab, report: Report, times: int) -> None:
    """kill -9 of `run`: its guard, which sees it, sees to it that others elsewhere hear of it."""
    first, second, _ = lab.machines
    seconds, alive = [], []
    for _ in range(times):
        held, waiter = Held(first), Waiter(second)
        held.run.kill()
        killed_at = time.time()
        granted_at = waiter.granted_at()
        seconds.append(granted_at - killed_at)
        alive.append(granted_at - held.moments("lives")[-1])
    report(
        f"kill -9 of run, {times} times; granted on another machine",
        max(seconds) < LIFE_SECONDS / 3 and min(alive) > 0,
        median_seconds=statistics.median(seconds), most_seconds=max(seconds), least_margin_seconds=min(alive),
    )  # fmt: skip


def killed_with_guard(lab: Lab, report: Report) -> None:
    """kill -9 of `run` and its guard together."""
    first, second, _ = lab.machines
    held, waiter = Held(first), Waiter(second)
    os.kill(held.guard, signal.SIGKILL)
    held.run.kill()
    killed_at = time.time()
    granted_at = waiter.granted_at()
    seconds = granted_at - killed_at
    last = held.moments("lives")[-1]
    report(
        "kill -9 of run and its guard; granted on another machine",
        last < granted_at and seconds <= LIFE_SECONDS + 2, seconds=seconds, margin_seconds=granted_at - last,
    )  # fmt: skip
    lab.until_free()
    held = Held(first)
    os.kill(held.guard, signal.SIGKILL)
    held.run.kill()
    held.run.wait()
    killed_at = time.time()
    got = first.run("lease", "--blueprint", "one", "--type", "host", "--no-wait", "--json")
    report(
        "kill -9 of run and its guard; a command of the same machine",
        got.returncode == 0, seconds_with_its_start=time.time() - killed_at,
    )  # fmt: skip
    first.run("release", str(json.loads(got.stdout)["id"]))
    held, waiter = Held(first), Waiter(first)
    os.kill(held.guard, signal.SIGKILL)
    held.run.kill()
    killed_at = time.time()
    seconds = waiter.granted_at() - killed_at
    report("kill -9 of run and its guard; a waiter on the same machine", seconds < LIFE_SECONDS / 3, seconds=seconds)


def stopped(lab: Lab, report: Report) -> None:
    """SIGSTOP of `run` for longer than others believe in it."""
    first, second, _ = lab.machines
    held, waiter = Held(first), Waiter(second)
    os.kill(held.run.pid, signal.SIGSTOP)
    stopped_at = time.time()
    granted_at = waiter.granted_at()
    last, asked = held.moments("lives")[-1], held.moments("asked")
    os.kill(held.run.pid, signal.SIGCONT)
    held.run.communicate(timeout=PATIENCE_SECONDS)
    report(
        "SIGSTOP of run", last < granted_at and held.run.returncode == 124,
        margin_seconds=granted_at - last, asked_after_seconds=asked[0] - stopped_at if asked else None,
        stopped_after_seconds=last - stopped_at, granted_after_seconds=granted_at - stopped_at,
        exit_code=held.run.returncode,
    )  # fmt: skip
    held = Held(first)
    os.kill(held.run.pid, signal.SIGSTOP)
    patience = held.guard
    wait(lambda: not Path(f"/proc/{patience}/cmdline").read_bytes(), "the guard has done its work")
    os.kill(held.run.pid, signal.SIGCONT)
    held.run.communicate(timeout=PATIENCE_SECONDS)
    report("SIGSTOP of run, and nobody waits", held.run.returncode == 124, exit_code=held.run.returncode)


def vanished(lab: Lab, report: Report) -> None:
    """The holder's machine goes without a word: no packet leaves it, and all its processes end."""
    second, third = lab.machines[1:]
    held, waiter = Held(third), Waiter(second)
    third.cut("switch")
    third.kill_all()
    gone_at = time.time()
    held.run.wait()
    ip("netns", "delete", third.name)
    seconds = waiter.granted_at() - gone_at
    report("a machine vanishes", 0 < seconds <= LIFE_SECONDS + 2, seconds=seconds)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def names(prefix: str) -> list[str]:
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line.startswith(f"{prefix}-")]


def wait(until: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not until():
        if time.monotonic() > end:
            raise TimeoutError(f"it never came to this: {what}")
        time.sleep(0.01)


def forget_the_dead() -> None:
    """Namespaces of an earlier run that was killed."""
    for name in names("drydock"):
        pid = name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            ip("netns", "delete", name)


def cannot() -> str | None:
    if os.geteuid() != 0:
        return "only root may make network namespaces; run it with sudo"
    if shutil.which("ip") is None:
        return "there is no `ip` here; it comes with iproute2"
    name = f"drydock-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        try:
            ip("-n", name, "link", "add", "bridge0", "type", "bridge")
        finally:
            ip("netns", "delete", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespace with a bridge can be made here ({' '.join(error.stderr.split())})"
    return None


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="how often `run` is killed [default: 20]")
    parser.add_argument("--ttl", default="5s", metavar="DURATION", help="of the cut with a short ttl [default: 5s]")
    options = parser.parse_args()
    if why := cannot():
        print(f"three-machines: {why}", file=sys.stderr)
        return REFUSED
    forget_the_dead()
    report = Report()
    with ending_on_signals(), Lab() as lab:
        pool = lab.folder / "pool.toml"
        pool.write_text(POOL)
        applied = lab.machines[0].run("apply", str(pool))
        assert applied.returncode == 0, applied.stderr
        trials: list[Callable[[], None]] = [
            lambda: everyday(lab, report),
            lambda: cut_off(lab, report, "cable"),
            lambda: cut_off(lab, report, "switch"),
            lambda: cut_off(lab, report, "cable", "--ttl", options.ttl),
            lambda: cut_off(lab, report, "switch", "--ttl", options.ttl),
            lambda: killed(lab, report, options.kills),
            lambda: killed_with_guard(lab, report),
            lambda: stopped(lab, report),
            lambda: vanished(lab, report),
        ]
        for trial in trials[:-1]:
            trial()
            lab.until_free()
        trials[-1]()
        report("all", not report.broken, broken=report.broken)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
