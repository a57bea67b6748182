"""Measure the budgets, each as a ratio to a yardstick that is measured in the same run, turn by turn with it.

Nothing here is a stopwatch test: where a figure is a time by itself, it is told beside what the same machine needed for
the yardstick. A mark says what was met and what was missed.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import platform
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import venv
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

from bench_fill import fill, fill_pool
from bench_loop import Loop
from bench_row import Row
from bench_waiting import IDLE_WAITERS, PATIENCE_SECONDS, ByHand, deaths, hand_overs, idling, received

import drydock
from drydock.doctor import examine
from drydock.errors import NothingFree
from drydock.store import open_store
from drydock.store.files import filesystem_of
from drydock.store.sqlite import DURABILITY

TREE = Path(__file__).resolve().parent.parent
INSTALLED_FROM = ("pyproject.toml", "README.md", "LICENSE", "drydock", "blueprints")
EXAMPLES = """examples:
  scripts/bench                             all budgets, about five minutes
  scripts/bench --quick                     a look, less sure of everything
  scripts/bench --only startup --only cost
  scripts/bench --only soak --seconds 60    16 processes, 4 hosts; not part of the others, as fair, killed, postgres
  scripts/bench --json --strict             for a machine; exit 1 when a budget is missed
"""


class Size(NamedTuple):
    """How much is measured."""

    starts: int  #: of each command
    rounds: int  #: of each contest
    seconds: float  #: for each round
    bindings: tuple[int, ...]
    finished: int
    cycles: int  #: in each round of a cost
    hand_offs: int
    deaths: int


FULL = Size(21, 5, 2.0, (100, 10_000, 100_000), 1_000_000, 200, 150, 100)
QUICK = Size(5, 2, 0.7, (100, 10_000), 20_000, 60, 20, 5)


# ---- the workshop


class Workshop:
    """A temporary folder, and what is made in it when it is first asked for."""

    def __init__(self, folder: Path, size: Size, here: bool) -> None:
        self.folder, self.size, self.here = folder, size, here
        self._number = 0

    @cached_property
    def bin(self) -> Path:
        """Where `python` and `drydock` are, installed as a user has them: an editable install starts more slowly."""
        if self.here:
            return Path(sys.executable).parent
        say("installing into an environment of its own")
        source, made = self.folder / "source", self.folder / "venv"
        source.mkdir()
        for name in INSTALLED_FROM:
            copy = shutil.copytree if (TREE / name).is_dir() else shutil.copy
            copy(TREE / name, source / name)
        venv.create(made, with_pip=True)
        install = [str(made / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*install, str(source)], check=True, stdout=sys.stderr)
        return made / "bin"

    def new_path(self) -> Path:
        self._number += 1
        return self.folder / f"store{self._number}.db"

    def pool(self, hosts: int, held: int = 0) -> Path:
        """A store with so many hosts, each with its resource, of which so many are held by nobody's process."""
        path = self.new_path()
        fill_pool(str(path), hosts, held)
        return path

    def filled(self, bindings: int, finished: int = 0) -> Path:
        """The store of `bench_fill` with so much in it."""
        path = self.folder / f"filled-{bindings}-{finished}.db"
        if not path.exists():
            say(f"filling a store with {bindings:,} bindings and {finished:,} finished leases")
            fill(path, bindings, finished)
        return path


def say(what: str) -> None:
    print(f"bench: {what} ...", file=sys.stderr, flush=True)


def synchronous(value: str) -> None:
    """How durable the stores are that are opened from now on, here and in child processes."""
    os.environ[DURABILITY] = value


def paired(subject: Sequence[float], yardstick: Sequence[float]) -> float:
    """The median of the ratios of what was measured turn by turn."""
    return statistics.median(a / b for a, b in zip(subject, yardstick, strict=True))


# ---- starting a command


def startup(shop: Workshop) -> Iterator[Row]:
    environment = clean_environment(shop.pool(4))
    python, command = str(shop.bin / "python"), str(shop.bin / "drydock")
    took: dict[str, list[float]] = {"click": [], "help": [], "locks": [], "lease": [], "release": []}

    def start(name: str, *arguments: str) -> str:
        begun = time.perf_counter()
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
        took[name].append(time.perf_counter() - begun)
        return done.stdout

    def turn() -> None:
        start("click", python, "-c", "import click")
        start("help", command, "--help")
        start("locks", command, "locks")
        lease = json.loads(start("lease", command, "lease", "--type", "host", "--no-wait", "--json"))
        start("release", command, "release", str(lease["id"]))

    for _ in range(2):
        turn()  # not counted: files are read for the first time
    took = {name: [] for name in took}
    for _ in range(shop.size.starts):
        turn()
    yardstick = statistics.median(took["click"])
    for name, words, most in (
        ("help", "drydock --help", 1.3),
        ("locks", "drydock locks", 1.5),
        ("lease", "drydock lease --no-wait", 2.0),
        ("release", "drydock release", 2.0),
    ):
        own = statistics.median(took[name])
        detail = f"{own * 1000:.0f} ms; import click {yardstick * 1000:.0f} ms"
        yield Row(words, own / yardstick, at_most=most, detail=detail)


def clean_environment(store: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRYDOCK_", "PYTHON"))}
    return {**kept, "DRYDOCK_STORE": str(store)}


# ---- one process


def cycle(shop: Workshop) -> Iterator[Row]:
    for durability in ("full", "normal"):
        synchronous(durability)
        own, byhand = [], []
        dock = drydock.connect(str(shop.pool(100, held=50)))
        loop = Loop(str(shop.pool(100, held=50)), durability, turnstile=False)
        for _ in range(2 * shop.size.rounds + 1):
            own.append(cycles_per_second(partial(one_cycle, dock), shop.size.seconds / 4))
            byhand.append(cycles_per_second(partial(one_cycle_by_hand, loop), shop.size.seconds / 4))
        dock.close()
        loop.close()
        detail = f"{statistics.median(own[1:]):.0f}/s; by hand {statistics.median(byhand[1:]):.0f}/s"
        yield Row(
            f"lease + release, one process, {durability}", paired(own[1:], byhand[1:]), at_least=0.5, detail=detail
        )


def one_cycle(dock: drydock.Connection) -> None:
    dock.lease("host", wait=0).release()


def one_cycle_by_hand(loop: Loop) -> None:
    loop.release(loop.wait())


def cycles_per_second(once: Callable[[], object], seconds: float) -> float:
    number, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        once()
        number += 1
    return number / spent


# ---- many processes


class Contest(NamedTuple):
    """What several processes did with the same few hosts for a while."""

    seconds: float
    served: tuple[int, ...]  #: grants of each process
    waits: tuple[float, ...]  #: seconds from asking to holding, sorted
    overlaps: int  #: times that two held one host at one moment of CLOCK_MONOTONIC
    errors: tuple[str, ...]

    @property
    def grants_per_second(self) -> float:
        return sum(self.served) / self.seconds

    @property
    def unfairness(self) -> float:
        return max(self.served) / max(min(self.served), 0.5)

    @property
    def p99(self) -> float:
        return self.waits[int(len(self.waits) * 0.99)]


def contend(
    path: object, durability: str, seconds: float, *, processes: int = 8, hold: str = "none", byhand: bool = False
) -> Contest:
    synchronous(durability)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    pipes, workers = [], []
    for _ in range(processes):
        mine, theirs = context.Pipe()
        work = context.Process(
            target=contestant, args=(str(path), durability, seconds, hold, byhand, barrier, theirs), daemon=True
        )
        work.start()
        theirs.close()
        pipes.append(mine)
        workers.append(work)
    results = [received(pipe, seconds + PATIENCE_SECONDS) for pipe in pipes]
    for work in workers:
        work.join()
    held = [hold for result in results for hold in result["held"]]
    return Contest(
        seconds,
        tuple(len(result["held"]) for result in results),
        tuple(sorted(wait for result in results for wait in result["waits"])),
        overlaps(held),
        tuple(error for result in results for error in result["errors"]),
    )


def by_hand(path: str, durability: str) -> Any:
    if path.startswith("postgresql:"):
        from bench_loop_postgres import PostgresLoop

        return PostgresLoop(path)
    return Loop(path, durability, turnstile=True)


HOLDS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "5 ms": lambda: time.sleep(0.005),
    "up to 2 ms": lambda: time.sleep(random.random() * 0.002),
}


def contestant(path: str, durability: str, seconds: float, hold: str, byhand: bool, barrier: Any, pipe: Pipe) -> None:
    """One process: lease, hold, release, until time is up; then tell who had what from when to when."""
    held: list[tuple[int, float, float]] = []
    waits: list[float] = []
    errors: list[str] = []
    loop = by_hand(path, durability) if byhand else None
    dock = None if byhand else drydock.connect(path)
    keep = HOLDS[hold]
    barrier.wait(PATIENCE_SECONDS)
    now = begun = time.monotonic()
    try:
        while now < begun + seconds:
            asked = now
            lease: Any = loop.wait() if loop else dock.lease("host") if dock else None
            granted = time.monotonic()
            keep()
            given_back = time.monotonic()
            if loop:
                loop.release(lease)
            else:
                lease.release()
            waits.append(granted - asked)
            held.append((lease[1] if loop else lease.resource.id, granted, given_back))
            now = time.monotonic()
    except Exception:  # noqa: BLE001 - whatever it is, the parent tells it
        errors.append(traceback.format_exc())
    pipe.send({"held": held, "waits": waits, "errors": errors})
    if loop:
        loop.close()
    if dock:
        dock.close()


def overlaps(held: Sequence[tuple[int, float, float]]) -> int:
    """How often a host was held anew before its last holder began to give it back."""
    number = 0
    latest: dict[int, float] = {}
    for host, start, end in sorted(held):
        number += start < latest.get(host, 0.0)
        latest[host] = max(end, latest.get(host, 0.0))
    return number


def crowd(shop: Workshop) -> Iterator[Row]:
    for durability in ("full", "normal"):
        own, byhand = rounds_of(shop.pool, durability, "none", shop.size)
        name = f"8 processes, 4 hosts, no hold, {durability}"
        speed = paired([c.grants_per_second for c in own], [c.grants_per_second for c in byhand])
        yield Row(name, speed, at_least=0.5, detail=f"{rate(own)} grants/s; by hand {rate(byhand)}")
        worst = max(own, key=lambda c: c.unfairness)
        yield Row(
            "  most / least served",
            worst.unfairness,
            at_most=2,
            detail=f"by hand {max(c.unfairness for c in byhand):.2f}",
        )
        yield Row(
            "  longest wait", max(c.waits[-1] for c in own), "s", at_most=0.5,
            detail=f"by hand {max(c.waits[-1] for c in byhand):.3f} s",
        )  # fmt: skip
        yield Row("  two holders of one host", sum(c.overlaps for c in own), "", at_most=0)


def held(shop: Workshop) -> Iterator[Row]:
    own, byhand = rounds_of(shop.pool, "full", "5 ms", shop.size)
    use = statistics.median(c.grants_per_second / 800 for c in own)
    detail = f"{rate(own)} of 800 grants/s; by hand {rate(byhand)}"
    yield Row("8 processes, 4 hosts held 5 ms, full: use", use, "", at_least=0.85, detail=detail)
    # The budget was set where the loop by hand had 0.88.
    beside = paired([c.grants_per_second for c in own], [c.grants_per_second for c in byhand])
    yield Row("  beside the loop by hand", beside, at_least=0.966)
    yield Row(
        "  p99 wait", statistics.median(c.p99 for c in own) * 1000, "ms", at_most=15,
        detail=f"by hand {statistics.median(c.p99 for c in byhand) * 1000:.0f} ms",
    )  # fmt: skip
    yield Row(
        "  most / least served", statistics.median(c.unfairness for c in own), at_most=1.05,
        detail=f"by hand {statistics.median(c.unfairness for c in byhand):.2f}",
    )  # fmt: skip
    yield Row("  two holders of one host", sum(c.overlaps for c in own), "", at_most=0)


def rounds_of(
    pool: Callable[[int], object], durability: str, hold: str, size: Size, *, processes: int = 8, hosts: int = 4
) -> tuple[list[Contest], list[Contest]]:
    own, byhand = pool(hosts), pool(hosts)
    contest = partial(contend, durability=durability, seconds=size.seconds, processes=processes, hold=hold)
    turns = [(contest(own), contest(byhand, byhand=True)) for _ in range(size.rounds)]
    for error in (e for pair in turns for c in pair for e in c.errors):
        raise RuntimeError(f"a process failed: {error}")
    return [a for a, _ in turns], [b for _, b in turns]


def rate(contests: Sequence[Contest]) -> str:
    return f"{statistics.median(c.grants_per_second for c in contests):.0f}"


def soak(shop: Workshop, seconds: float = 10.0) -> Iterator[Row]:
    path = shop.pool(4)
    contest = contend(path, "full", seconds, processes=16, hold="up to 2 ms")
    for error in contest.errors:
        print(error, file=sys.stderr)
    yield Row(f"16 processes, 4 hosts, {seconds:g} s, full", contest.grants_per_second, "/s")
    yield Row("  most / least served", contest.unfairness)
    yield Row("  longest wait", contest.waits[-1], "s", detail=f"p99 {contest.p99 * 1000:.0f} ms")
    yield Row("  two holders of one host", contest.overlaps, "", at_most=0)
    yield Row("  errors", len(contest.errors), "", at_most=0)
    store = open_store(str(path))
    broken = [finding.sentence for finding in examine(store) if finding.broken]
    store.close()
    yield Row("  what doctor finds broken", len(broken), "", at_most=0, detail="; ".join(broken))
    reclaim = [sys.executable, "-c", "from drydock.cli import main; main()", "reclaim"]
    subprocess.run(reclaim, env=clean_environment(path), check=True, stdout=subprocess.DEVNULL)
    with drydock.connect(str(path)) as dock:
        left = [lock.key for lock in dock.locks()]
    yield Row("  slot locks left after reclaim", len(left), "", at_most=0, detail=", ".join(left))


# ---- size


def cost(shop: Workshop) -> Iterator[Row]:
    # Waiting for the disk costs the same for every size and would hide what grows.
    synchronous("normal")
    sizes = [(n, 0) for n in shop.size.bindings] + [(shop.size.bindings[-1], shop.size.finished)]
    docks = {size: drydock.connect(str(shop.filled(*size))) for size in sizes}
    yield from grown("any host", partial(leased, wanted=None), docks, shop.size, 1.3)
    yield from grown("the last free arm64 host", partial(leased, wanted=ARM64), docks, shop.size, 1.3)
    for dock in docks.values():
        dock.lease("host", attributes=ARM64, wait=0)
    # Without a budget: it counts what is in use, up to a thousand, to say why; beyond that it must not grow.
    yield from grown("a refusal: all arm64 hosts are held", refused, docks, shop.size, None)
    for dock in docks.values():
        dock.close()


ARM64 = {"arch": "arm64"}


def leased(dock: drydock.Connection, wanted: dict[str, str] | None) -> None:
    dock.lease("host", attributes=wanted, wait=0).release()


def refused(dock: drydock.Connection) -> None:
    with contextlib.suppress(NothingFree):
        dock.lease("host", attributes=ARM64, wait=0)


def grown(
    what: str,
    once: Callable[[drydock.Connection], None],
    docks: dict[tuple[int, int], drydock.Connection],
    size: Size,
    at_most: float | None,
) -> Iterator[Row]:
    """What it costs in each store, beside what it costs in the first, turn by turn."""
    stores = list(docks)
    took: dict[tuple[int, int], list[float]] = {store: [] for store in stores}
    for turn in range(4 * size.rounds + 2):
        first = turn % len(stores)
        for store in stores[first:] + stores[:first]:
            begun = time.perf_counter()
            for _ in range(size.cycles):
                once(docks[store])
            took[store].append((time.perf_counter() - begun) / size.cycles)
    counted = {store: times[2:] for store, times in took.items()}  # the first turns warm the caches
    base = counted[stores[0]]
    for store in stores[1:]:
        own, small = (statistics.median(times) * 1e6 for times in (counted[store], base))
        after = f" after {store[1]:,} leases" if store[1] else ""
        detail = f"{own:.0f} us; with {stores[0][0]}, {small:.0f} us"
        yield Row(f"{what}: {store[0]:,}{after}", paired(counted[store], base), at_most=at_most, detail=detail)


#: A child's peak counts what its parent was when it forked, so a small parent starts the command that is measured.
PEAK = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, used = os.wait4(pid, 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def memory(shop: Workshop) -> Iterator[Row]:
    unit = 1 if sys.platform == "darwin" else 1024
    most = shop.size.bindings[-1]
    for what, path in (("4 bindings", shop.pool(4)), (f"{most:,} bindings", shop.filled(most))):
        command = [sys.executable, "-ISc", PEAK, str(shop.bin / "drydock"), "lease", "--type", "host", "--no-wait"]
        peaks = [
            int(subprocess.run(command, env=clean_environment(path), capture_output=True, text=True, check=True).stdout)
            for _ in range(3)
        ]
        yield Row(f"memory of drydock lease, {what}", statistics.median(peaks) * unit / 1e6, "MB", at_most=40)


# ---- handing over


def handoff(shop: Workshop) -> Iterator[Row]:
    for durability in ("full", "normal"):
        synchronous(durability)
        own, byhand = str(shop.pool(1)), str(shop.pool(1))
        number = shop.size.hand_offs // shop.size.rounds
        turns = [(hand_overs(own, number), hand_overs(byhand, number, ByHand)) for _ in range(shop.size.rounds)]
        took, looked = (sorted(itertools.chain(*rounds)) for rounds in zip(*turns, strict=True))
        yield Row(
            f"release to the waiter's grant, {durability}: median", statistics.median(took) * 1000, "ms",
            at_most=1.5 if durability == "full" else None,
            detail=f"p99 {took[int(len(took) * 0.99)] * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms of {len(took)}",
        )  # fmt: skip
        beside = paired([statistics.median(a) for a, _ in turns], [statistics.median(b) for _, b in turns])
        yield Row(
            "  beside a loop that looks every ms", beside, at_most=0.88 if durability == "full" else None,
            detail=f"which needs {statistics.median(looked) * 1000:.2f} ms",
        )  # fmt: skip
    synchronous("full")
    seconds = 5 * shop.size.seconds
    yield Row("an idle waiter's use of a core", idling(str(shop.pool(1)), seconds, 1) * 100, "%", at_most=1)
    many = idling(str(shop.pool(1)), seconds, IDLE_WAITERS)
    yield Row(
        f"the same, each of {IDLE_WAITERS}",
        many / IDLE_WAITERS * 100,
        "%",
        at_most=1,
        detail=f"all {many:.1%} of a core",
    )


def killed(shop: Workshop, _: float = 0.0) -> Iterator[Row]:
    """Not a part of the others, since it starts a command for each try."""
    synchronous("full")
    took = sorted(deaths(str(shop.pool(1)), str(shop.bin / "drydock"), shop.size.deaths))
    yield Row(
        "kill -9 of drydock run to the next grant: worst", took[-1] * 1000, "ms", at_most=1000,
        detail=f"median {statistics.median(took) * 1000:.0f} ms of {len(took)}",
    )  # fmt: skip


def fair(shop: Workshop, seconds: float = 10.0) -> Iterator[Row]:
    """Not a part of the others, since it takes long to be sure of."""
    yield from contest_of_16(shop.pool, "", seconds)


def contest_of_16(pool: Callable[[int], object], where: str, seconds: float) -> Iterator[Row]:
    for hosts in (1, 4):
        contest = contend(pool(hosts), "full", seconds, processes=16, hold="up to 2 ms")
        name = f"{where}16 processes, {hosts} host{'s' if hosts > 1 else ''}, {seconds:g} s"
        yield Row(
            f"{name}: most / least served",
            contest.unfairness,
            at_most=1.5,
            detail=f"{contest.grants_per_second:.0f} grants/s",
        )
        ideal = 16 / contest.grants_per_second
        yield Row(
            "  worst wait, beside everybody in turn",
            max(contest.waits) / ideal,
            detail=f"{max(contest.waits):.3f} s; in turn {ideal:.3f} s",
        )
        yield Row("  two holders of one host", contest.overlaps, "", at_most=0)


# ---- many machines


def postgres(shop: Workshop, seconds: float = 10.0) -> Iterator[Row]:
    """Not a part of the others, since it starts a server."""
    import bench_postgres

    size, clients, hosts = shop.size, bench_postgres.CLIENTS, bench_postgres.HOSTS
    with bench_postgres.stores(shop.folder) as made:
        own, byhand = rounds_of(made.pool, "full", "none", size, processes=clients, hosts=hosts)
        speed = paired([c.grants_per_second for c in own], [c.grants_per_second for c in byhand])
        detail = f"{rate(own)} grants/s; by hand {rate(byhand)}"
        yield Row(f"PostgreSQL, {clients} clients, {hosts} hosts, no hold", speed, at_least=0.7, detail=detail)
        unfair = [statistics.median(c.unfairness for c in contests) for contests in (own, byhand)]
        yield Row("  most / least served", unfair[0], detail=f"by hand {unfair[1]:.2f}")
        waits = [statistics.median(c.p99 for c in contests) * 1000 for contests in (own, byhand)]
        yield Row("  p99 wait", waits[0], "ms", detail=f"by hand {waits[1]:.0f} ms")
        yield Row("  two holders of one host", sum(c.overlaps for c in own), "", at_most=0)
        yield from contest_of_16(made.pool, "PostgreSQL, ", seconds)
        quick = size is QUICK
        for measure in bench_postgres.measures(
            size.hand_offs, size.bindings[-1], size.finished, size.rounds, size.cycles, quick
        ):
            yield from measure(made)


# ---- telling


BENCHES: dict[str, Callable[[Workshop], Iterator[Row]]] = {
    "startup": startup,
    "cycle": cycle,
    "crowd": crowd,
    "held": held,
    "cost": cost,
    "memory": memory,
    "handoff": handoff,
}
#: only when they are named: they take long, or more than the shop
LONG: dict[str, Callable[[Workshop, float], Iterator[Row]]] = {
    "killed": killed,
    "fair": fair,
    "soak": soak,
    "postgres": postgres,
}


def machine(folder: Path) -> str:
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(200):
            file.write(b"\0" * 4096)
            begun = time.perf_counter()
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            times.append(time.perf_counter() - begun)
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} cores, {filesystem_of(str(folder)) or 'unknown filesystem'},"
        f" fdatasync p50 {statistics.median(times) * 1e6:.0f} us"
    )


def as_object(row: Row) -> dict[str, Any]:
    kept = {**row._asdict(), "name": row.name.strip(), "figure": round(row.figure, 4)}
    return {**kept, "verdict": row.verdict}


def tell(rows: Sequence[Row], facts: str, as_json: bool) -> None:
    if as_json:
        return  # told one by one, as they were measured
    cells = [(r.name, f"{r.figure:.3g} {r.unit}".strip(), r.budget, r.verdict, r.detail) for r in rows]
    if not sys.stdout.isatty():
        print(f"# {facts}")
        for line in [("what", "figure", "budget", "verdict", "detail"), *cells]:
            print("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"met": "green", "missed": "bold red", "info": "dim"}
    table = Table("what", "figure", "budget", "verdict", "detail", caption=facts)
    for what, figure, budget, verdict, detail in cells:
        table.add_row(Text(what), Text(figure), Text(budget), Text(verdict, colours[verdict]), Text(detail))
    Console().print(table)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[*BENCHES, *LONG],
        metavar="NAME",
        help=f"one of: {', '.join([*BENCHES, *LONG])}",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repeats, smaller stores")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long soak and fair last [default: 10]")
    parser.add_argument("--here", action="store_true", help="start the drydock of this environment, editable or not")
    parser.add_argument("--folder", type=Path, help="where the stores are made [default: the temporary folder]")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a budget is missed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parsed(arguments)
    with tempfile.TemporaryDirectory(prefix="drydock-bench-", dir=options.folder) as name:
        shop = Workshop(Path(name), QUICK if options.quick else FULL, options.here)
        facts = machine(shop.folder)
        rows: list[Row] = []
        for bench in options.only or BENCHES:
            say(bench)
            found = LONG[bench](shop, options.seconds) if bench in LONG else BENCHES[bench](shop)
            for row in found:
                rows.append(row)
                if options.json:
                    print(json.dumps(as_object(row)), flush=True)
        tell(rows, facts, options.json)
    return int(options.strict and any(row.verdict == "missed" for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
