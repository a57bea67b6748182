"""A kind whose hooks do what no hook should: which of them, and what, is told by its settings."""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import drydock
from drydock.blueprint import (
    Attributes,
    Builder,
    ConfigError,
    LeaseInfo,
    Need,
    Plan,
    Refused,
    ResourceInfo,
    Setting,
    Yield,
    slot_lock,
)


class Stubborn(BaseException):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        sys.exit("not even its __str__")


class Unruly(Builder):
    type = "thing"
    time_limit = float(os.environ.get("UNRULY_SECONDS", "60"))
    settings_schema: ClassVar[Mapping[str, Setting]] = {
        "what": Setting(str, "the name of a function here"),
        "when": Setting(str, "in which hooks", "activate"),
        "plans": Setting(str, "the name of a function here that gives its plans", "one"),
        "notes": Setting(str, "a folder"),
    }

    def plans(self, wanted: Attributes) -> Iterable[Plan]:
        self.note("plans", self.name)
        return getattr(self, self.settings["plans"])(len(self.noted("plans")))

    def activate(self, resource: ResourceInfo) -> object:
        return self.act("activate", resource)

    def destroy(self, resource: ResourceInfo) -> object:
        return self.act("destroy", resource)

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> object:
        return self.act("activate_lease", lease)

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> object:
        return self.act("destroy_lease", lease)

    def act(self, hook: str, about: ResourceInfo | LeaseInfo) -> object:
        self.about = about
        self.note("hooks", hook)
        if hook in self.settings["when"].split():
            return getattr(self, self.settings["what"])()
        return None

    def note(self, name: str, word: object) -> None:
        with (Path(self.settings["notes"]) / name).open("a") as file:
            file.write(f"{word}\n")

    def noted(self, name: str) -> list[str]:
        file = Path(self.settings["notes"]) / name
        return file.read_text().splitlines() if file.exists() else []

    def note_process(self) -> None:
        self.note("processes", os.getpid())

    def hang(self) -> None:
        self.note_process()
        self.note("hangs", "now")
        while True:
            time.sleep(1)

    # ---- its plans, for the how manieth time it is asked

    def one(self, turn: int) -> Iterator[Plan]:
        yield Plan("it", (slot_lock("unruly", self.name),))

    def opens_the_store(self, turn: int) -> Iterator[Plan]:
        Path(os.environ["STORE"]).open().close()
        yield from self.one(turn)

    def only_once(self, turn: int) -> Iterator[Plan]:
        if turn == 1:
            yield from self.one(turn)

    def always_another_in_vain(self, turn: int) -> Iterator[Plan]:
        yield Plan(f"it-{turn}", (slot_lock("unruly", turn), slot_lock("host", "h1")))

    def always_on_another(self, turn: int) -> Iterator[Plan]:
        yield Plan(f"it-{turn}", (slot_lock("unruly", turn),), on=Need("host", passes_on=(f"port-{turn}",)))

    def now_on_a_host_now_in_its_place(self, turn: int) -> Iterator[Plan]:
        yield from self.always_on_another(turn) if turn % 2 else self.always_another_in_vain(turn)

    def told_with_a_secret(self, turn: int) -> Iterator[Plan]:
        raise ConfigError(f"{os.environ['LAB_PASSWORD']} is not the password")

    # ---- what it returns

    def nothing(self) -> None:
        pass

    def no(self) -> object:
        return False

    def words(self) -> object:
        return "yes"

    def not_implemented(self) -> object:
        return NotImplemented

    def a_coroutine(self) -> object:
        async def later() -> None:
            pass

        return later()

    def a_generator(self) -> object:
        yield 1

    # ---- what it raises

    def raises(self) -> None:
        raise RuntimeError("no timber")

    def refuses(self) -> None:
        raise Refused("not ours")

    def ten_megabytes(self) -> None:
        raise RuntimeError("x" * 10_000_000)

    def unprintable(self) -> None:
        raise Unprintable

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def exits(self) -> None:
        sys.exit(4)

    def generator_exit(self) -> None:
        raise GeneratorExit

    def stubborn(self) -> None:
        raise Stubborn("no Exception")

    def out_of_memory(self) -> None:
        raise MemoryError

    def recursion(self) -> None:
        self.recursion()

    def a_long_chain(self) -> None:
        error = RuntimeError("first")
        for number in range(1000):
            error.__context__, error = error, RuntimeError(f"number {number}")
        raise error

    def later_than_ever(self) -> None:
        raise Yield(float("inf"))

    def later_in_words(self) -> None:
        later = Yield(1)
        later.after = "soon"  # type: ignore[assignment]
        raise later

    # ---- how it ends

    def exits_hard(self) -> None:
        os._exit(3)

    def exits_hard_and_well(self) -> None:
        os._exit(0)

    def kills_itself(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def segfault(self) -> None:
        ctypes.string_at(0)

    def abort(self) -> None:
        os.abort()

    def kills_its_parent(self) -> None:
        self.note_process()
        os.kill(os.getppid(), signal.SIGKILL)
        self.hang()

    def kills_its_grandparent(self) -> None:
        self.note_process()
        status = Path(f"/proc/{os.getppid()}/stat").read_text()
        os.kill(int(status.rpartition(") ")[2].split()[1]), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGKILL)
        self.hang()

    def becomes_another_program(self) -> None:
        os.execvp("true", ["true"])

    # ---- how it does not end

    def ignores_sigterm(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.hang()

    def stops_itself(self) -> None:
        self.note_process()
        os.kill(os.getpid(), signal.SIGSTOP)

    def stops_its_parent(self) -> None:
        self.note_process()
        os.kill(os.getppid(), signal.SIGSTOP)
        self.hang()

    def keeps_the_interpreter_busy(self) -> None:
        self.note_process()
        re.match("(a+)+$", "a" * 60 + "b")

    def children_and_hangs(self) -> None:
        for _ in range(3):
            self.child()
        self.hang()

    # ---- what it starts

    def child(self) -> None:
        """Still there when the hook is over, in its group, and with its output open."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.note("processes", child.pid)

    def daemon(self) -> None:
        """Forked twice, and in a session of its own."""
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                self.note_process()
                os.close(writing)
                time.sleep(600)
            os._exit(0)
        os.wait()
        os.close(writing)
        os.read(reading, 1)

    def daemon_and_raises(self) -> None:
        self.daemon()
        raise RuntimeError("no timber")

    def daemon_and_hangs(self) -> None:
        self.daemon()
        self.hang()

    def child_and_raises(self) -> None:
        self.child()
        raise RuntimeError("no timber")

    def forks_and_both_return(self) -> None:
        os.fork()

    def forks_and_one_raises(self) -> None:
        if os.fork() == 0:
            raise RuntimeError("this is the child")
        os.wait()

    def thread(self) -> None:
        threading.Thread(target=time.sleep, args=(600,)).start()

    # ---- what it does to its files

    def closes_all(self) -> None:
        os.closerange(0, 1024)

    def garbage(self) -> None:
        self._into_all_others(b"{]\n")

    def garbage_without_end(self) -> None:
        while True:
            self._into_all_others(b"x" * 65536)

    def _into_all_others(self, data: bytes) -> None:
        for fd in range(3, 100):
            try:
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                    os.write(fd, data)
            except OSError:
                pass

    def prints(self) -> None:
        print("hammer")  # noqa: T201
        print("nail", file=sys.stderr)  # noqa: T201
        os.write(1, b"\xff\0 wood\n")
        subprocess.run(["echo", "saw"])

    def prints_much(self) -> None:
        print("first")  # noqa: T201
        for _ in range(512):
            sys.stdout.write("x" * 65536)
        print("last")  # noqa: T201

    def prints_much_and_hangs(self) -> None:
        self.prints_much()
        self.hang()

    def prints_and_raises(self) -> None:
        print("hammer")  # noqa: T201
        raise RuntimeError("no timber")

    def reads(self) -> None:
        assert sys.stdin.read() == ""

    def asks_at_the_terminal(self) -> None:
        os.open("/dev/tty", os.O_RDWR)

    # ---- what it does to Drydock

    def changes_the_world(self) -> None:
        os.environ["UNRULY"] = "was here"
        sys.path.insert(0, "/unruly")
        os.chdir("/")
        os.umask(0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def tells_where_it_is(self) -> None:
        self.note("where", f"{os.environ.get('WHERE')} {Path.cwd().name}")

    def tells_its_limits(self) -> None:
        self.note("limits", resource.getrlimit(resource.RLIMIT_CORE)[0])

    def tells_its_files(self) -> None:
        for file in Path("/dev/fd").iterdir():
            self.note("files", os.path.realpath(file))

    def releases_its_lease(self) -> None:
        with drydock.connect(os.environ["STORE"]) as dock:
            dock.release(self.about.id)

    def keeps_the_store_busy(self) -> None:
        self.note_process()
        store = sqlite3.connect(os.environ["STORE"], isolation_level=None)
        store.execute("BEGIN IMMEDIATE")
        self.note("keeps", "the store")
        time.sleep(600)

    def deletes_the_store(self) -> None:
        self.note_process()
        Path(os.environ["STORE"]).unlink()

    def deletes_its_log(self) -> None:
        self.note_process()
        Path(os.environ["STORE"] + "-wal").unlink()

    def closes_the_store_to_all(self) -> None:
        Path(os.environ["STORE"]).chmod(0)

    def fills_the_disk(self) -> None:
        with (Path(os.environ["STORE"]).parent / "much").open("ab", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def fills_the_disk_and_raises(self) -> None:
        self.fills_the_disk()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def plants_a_link(self) -> None:
        link, target = os.environ["PLANTED"].split(":")
        Path(link).symlink_to(target)

    def tells_secrets(self) -> None:
        said = f"{os.environ['LAB_PASSWORD']} for {os.environ['DRYDOCK_STORE']}"
        print(said)  # noqa: T201
        raise RuntimeError(f"cannot log in: {said}")

    # ---- what takes longer, or is not done at all

    def is_not_ready_twice(self) -> None:
        if len(self.noted("hooks")) < 3:
            raise Yield(0.01)

    def is_never_ready(self) -> None:
        raise Yield(0.01)

    def builds_what_must_not_be_there(self) -> None:
        (Path(self.settings["notes"]) / "built").mkdir()

    # ---- what is ordered

    def waits(self) -> None:
        """Says that it is at work, and is until it is told to go on."""
        witness = os.open(Path(self.settings["notes"]) / "witness", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.note("work", "TWO AT ONCE")
            raise
        self.note("keepers", os.getppid())
        self.note_process()
        self.note("work", "begins")
        while not (Path(self.settings["notes"]) / "go").exists():
            time.sleep(0.005)
        self.note("work", "ends")
