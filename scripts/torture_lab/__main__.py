"""scripts/torture"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click
from disk import SmallDisk
from tormentor import Phase, Tormentor, set_up
from verdict import Verdict, torment

from drydock.errors import StoreError
from drydock.store.sqlite import DURABILITY
from drydock.testing.pgbouncer import Pgbouncer
from drydock.testing.postgres import GivenServer, server_for_tests

#: so many of the grants, and a tenth of the rest, are made on a disk that is full now and then
FIRST_ON_A_FULL_DISK = 200
FULL_PART = 10
#: what a grant leaves in the store, and what all else needs
BYTES_A_GRANT = 4096
BYTES_BESIDE = 48 * 2**20
#: who shares a server seems to be on so many machines
MACHINES = 2


class Plan(NamedTuple):
    store: str
    grants: int
    seed: int
    seconds: float
    processes: int
    hosts: int
    synchronous: str
    disk: str
    outage_every: float
    pgbouncer: bool

    def __str__(self) -> str:
        options = f"--processes {self.processes} --hosts {self.hosts}"
        if self.store == "sqlite":
            options += f" --synchronous {self.synchronous} --disk {self.disk}"
        else:
            pooler = " --pgbouncer" if self.pgbouncer else ""
            options += f" --store {self.store} --outage-every {self.outage_every:g}{pooler}"
        return f"scripts/torture --grants {self.grants} --seed {self.seed} --minutes {self.seconds / 60:g} {options}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", default="sqlite", show_default=True, type=click.Choice(["sqlite", "postgres"]),
              help="A file, or a durable server that is started for it.")  # fmt: skip
@click.option("--grants", default=20_000, show_default=True, type=click.IntRange(1), help="When it is enough.")
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0.01), help="No longer than that.")
@click.option("--seed", type=int, help="Of all that is chosen by chance; not of what the kernel decides.")
@click.option("--processes", default=16, show_default=True, type=click.IntRange(2))
@click.option("--hosts", default=4, show_default=True, type=click.IntRange(1))
@click.option("--synchronous", default="full", show_default=True, type=click.Choice(["full", "normal"]))
@click.option("--disk", default="auto", show_default=True, type=click.Choice(["auto", "small", "pretend", "never"]),
              help="How the disk gets full: a small one that is mounted for it, or SQLite is told so.")  # fmt: skip
@click.option("--outage-every", default=5.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0),
              help="How often the server is stopped with no warning and started again; 0: never.")  # fmt: skip
@click.option("--pgbouncer", is_flag=True, help="Reach the server through pgbouncer, which pools transactions.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave histories and stores in this new folder."
)
def main(
    store: str, grants: int, minutes: float, seed: int | None, processes: int, hosts: int, synchronous: str, disk: str,
    outage_every: float, pgbouncer: bool, keep: Path | None,
) -> None:  # fmt: skip
    """Let many processes lease a few hosts, and kill one of them every 50 ms.

    Some are stopped until their lease is over, some see another wall clock, and for a part of the time the disk is
    full now and then. Afterwards the history of all that they did is checked (drydock.testing.history), and the store.

    With --store postgres they share a server that is stopped again and again without warning (as pg_ctl -m immediate
    does), and half of them cannot see whether the others live, as if on another machine. It has a disk and a clock of
    its own, so those are left alone.

    \b
    scripts/torture                            a minute
    scripts/torture --grants 1000000           half an hour on two cores
    scripts/torture --seed 7 --keep FOLDER
    scripts/torture --store postgres --pgbouncer

    Exit code 0 only if nothing was granted twice, lost, leaked or damaged; else 1, and it says where the history is.
    """
    if pgbouncer and store == "sqlite":
        raise click.UsageError("--pgbouncer goes with --store postgres")
    chance = int.from_bytes(os.urandom(3)) if seed is None else seed
    plan = Plan(store, grants, chance, minutes * 60, processes, hosts, synchronous, disk, outage_every, pgbouncer)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ[DURABILITY] = synchronous
    folder = keep or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    if list(folder.iterdir()):
        raise click.UsageError(f"{folder} is not empty")
    click.echo(f"{plan}", err=True)
    try:
        verdicts = run_on_files(plan, folder) if store == "sqlite" else run_on_a_server(plan, folder)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    except (KeyboardInterrupt, SystemExit, click.ClickException):
        if keep is None:
            shutil.rmtree(folder)
        raise
    show(verdicts, ROWS if store == "sqlite" else SERVER_ROWS)
    if store == "postgres":
        click.echo("clock steps and full disks are for --store sqlite: a server has a clock and a disk of its own")
    wrong = [f"{name}: {sentence}" for name, verdict in verdicts.items() for sentence in verdict.wrong]
    for sentence in wrong:
        click.echo(f"torture: FAILED {sentence}", err=True)
    if wrong:
        click.echo(f"torture: histories and stores are in {folder}; run it again with: {plan}", err=True)
    elif keep is None:
        shutil.rmtree(folder)
    sys.exit(bool(wrong))


def run_on_files(plan: Plan, folder: Path) -> dict[str, Verdict]:
    """All phases, one after the other, by what they are called."""
    began = time.monotonic()
    first = min(plan.grants // 2, FIRST_ON_A_FULL_DISK)
    on_a_full_disk = 0 if plan.disk == "never" else first + (plan.grants - first) // FULL_PART
    verdicts: dict[str, Verdict] = {}

    def phase(name: str, store: Path, grants: int, fill: SmallDisk | bool) -> None:
        left = max(1.0, began + plan.seconds - time.monotonic())
        part = grants / (plan.grants - sum(verdict.grants for verdict in verdicts.values()) or 1)
        seconds = left * min(1.0, max(part, 0.1))
        here = Phase(
            name, folder / name.replace(" ", "-"), str(store), grants, seconds, plan.processes, plan.hosts, plan.seed,
            fill=fill, confuse=True,
        )  # fmt: skip
        set_up(here)
        verdicts[name] = torment(Tormentor(here))

    if plan.grants > on_a_full_disk:
        phase("ordinary disk", folder / "drydock.db", plan.grants - on_a_full_disk, False)
    if on_a_full_disk:
        with small_disk(plan, folder, on_a_full_disk) as disk:
            name = "small disk" if disk else "pretended full disk"
            store = disk.folder / "drydock.db" if disk else folder / "drydock-full.db"
            phase(name, store, on_a_full_disk, disk or True)
            if disk:
                for part in ("", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copy(f"{store}{part}", folder / f"drydock-full.db{part}")
    return verdicts


def run_on_a_server(plan: Plan, folder: Path) -> dict[str, Verdict]:
    """The one phase there is, by what it is called."""
    import drydock.store.postgres  # noqa: F401 - or each worker would have to do it

    machines = tuple(folder / f"machine{number}" for number in range(MACHINES))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_for_tests(durable=True))
        if plan.outage_every and isinstance(server, GivenServer):
            raise click.ClickException("a server of somebody else is not stopped here; give --outage-every 0")
        url = server.new_database()
        stack.callback(server.drop_database, url)
        if plan.pgbouncer:
            url = stack.enter_context(Pgbouncer(url)).url(urlsplit(url).path[1:])
        name = "PostgreSQL behind pgbouncer" if plan.pgbouncer else "PostgreSQL"
        here = Phase(
            name, folder / name.replace(" ", "-"), url, plan.grants, plan.seconds, plan.processes, plan.hosts,
            plan.seed, machines=machines, server=server, outage_every=plan.outage_every,
        )  # fmt: skip
        set_up(here)
        return {name: torment(Tormentor(here))}


@contextlib.contextmanager
def small_disk(plan: Plan, folder: Path, grants: int) -> Iterator[SmallDisk | None]:
    """A disk that may be filled; None where none may be mounted."""
    with contextlib.ExitStack() as stack:
        disk = None
        if plan.disk in ("auto", "small"):
            try:
                disk = stack.enter_context(SmallDisk(folder / "disk", BYTES_BESIDE + grants * BYTES_A_GRANT))
            except OSError as error:
                if plan.disk == "small":
                    raise click.ClickException(str(error)) from error
                click.echo(f"torture: {error}; SQLite is told that its disk is full", err=True)
        yield disk


Told = tuple[str, Callable[[Verdict], object]]
BEGIN: tuple[Told, ...] = (
    ("grants", lambda v: v.grants),
    ("kill -9", lambda v: v.torments.kills),
    ("stopped past the ttl", lambda v: v.torments.stops),
    ("  told that the lease is over", lambda v: v.refused_late),
    ("  late writes refused", lambda v: v.refused_writes),
)
OF_FILES: tuple[Told, ...] = (
    ("clock steps", lambda v: v.torments.steps),
    ("disk-full moments", lambda v: v.torments.fulls),
)
OF_SERVERS: tuple[Told, ...] = (("server stopped at once", lambda v: v.torments.outages),)
END: tuple[Told, ...] = (
    ("  operations that failed", lambda v: v.failed),
    ("  releases among them", lambda v: v.failed_releases),
    ("double grants", lambda v: v.double_grants),
    ("lost grants", lambda v: v.lost_grants),
    ("other violations", lambda v: v.other_violations),
    ("leaked leases and locks", lambda v: v.leaked),
    ("integrity and doctor", lambda v: "ok" if v.integrity else "BROKEN"),
    ("seconds", lambda v: round(v.torments.seconds)),
    ("grants/s", lambda v: round(v.grants / v.torments.seconds)),
)
ROWS = BEGIN + OF_FILES + END
SERVER_ROWS = BEGIN + OF_SERVERS + END


def show(verdicts: dict[str, Verdict], rows: Sequence[Told]) -> None:
    columns: list[Sequence[str]] = [["", *(name for name, _ in rows)]]
    columns += [[name, *(_told(tell(verdict)) for _, tell in rows)] for name, verdict in verdicts.items()]
    widths = [max(map(len, column)) for column in columns]
    for first, *others in zip(*columns, strict=True):
        cells = [other.rjust(width) for other, width in zip(others, widths[1:], strict=True)]
        click.echo("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def _told(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main(prog_name="scripts/torture")
