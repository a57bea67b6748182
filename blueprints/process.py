"""`process`: a service that is started for its first lease, and stopped when it is not needed any more.

    [blueprint.redis]
    kind = "process"
    type = "redis"
    command = ["redis-server", "--bind", "{address}", "--port", "{port}", "--dir", "{folder}"]
    port_type = "port"         # it stands on a port, leased for it from a `port-range`
    ready = { port = true }    # or { http = "/health" }, or { command = ["redis-cli", "-p", "{port}", "ping"] }
    folder = "/srv/services"   # must hold a file .drydock-root, which says that we may delete things there
    limit = 4

    $ drydock run --type redis -- sh -c 'redis-cli -h "$DRYDOCK_ATTR_ADDRESS" -p "$DRYDOCK_ATTR_PORT"'

The command is no shell's; it must stay in the foreground. In its arguments, and in the values of `environment`,
`{port}`, `{address}`, `{name}` and `{folder}` are filled in: where it listens, its name, and an empty folder of its own,
in which it is started. Its environment is what `environment` says and very little else, since whoever needs it first is
not the only one who uses it. Its output goes to the file `log` there. Its port and its address are attributes of it.

A service goes on between leases, and several leases share one if `seats` says so. With `ttl = "0s"` it is stopped after
each lease, so that each begins with a new one. One that has ended, or does not answer any more, is noticed, and whoever
holds it loses it. The services are those of one machine, and of one user.
"""

import contextlib
import fcntl
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from drydock.blueprint import (
    Attributes,
    Builder,
    ConfigError,
    Gone,
    Local,
    Need,
    Plan,
    Refused,
    ResourceInfo,
    Setting,
    check_name,
    fits,
    listed,
    parse_duration,
    quoted,
    slot_lock,
)

from .scratch_dir import checked_root, remove

MOST_SERVICES = 1000
KEEPER = Path(__file__).with_name("process_keeper.py")
#: what a service is told of the environment of whoever needs it first
KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
PLACEHOLDER = re.compile(r"\{(port|address|name|folder)\}")
CHECK_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.02
#: a service that does not answer is asked so often, with such a pause, before it counts as gone
TRIES, PAUSE_SECONDS = 3, 1.0
#: beyond the time that it has to stop
LATE_SECONDS = 30.0
#: of the end of its log, in what is told
TOLD_BYTES = 500
LONGEST_SECONDS = 240.0


class Process(Builder):
    """Services BLUEPRINT-0, BLUEPRINT-1 ...; the slot lock of one is `process(FOLDER/BLUEPRINT-0)`."""

    summary = "a service that is started when it is needed"
    settings_schema = {
        "command": Setting(list, "program and arguments; {port}, {address}, {name} and {folder} are filled in"),
        "folder": Setting(str, "the parent of the services' folders, absolute; must hold a file .drydock-root"),
        "ready": Setting(
            dict, "{ port = true }, { http = PATH } or { command = [...] }; default: port, if there is one", {}
        ),
        "ready_within": Setting(str, "how long it may take to be ready", "30s"),
        "stop_signal": Setting(str, "the signal that asks it to end", "TERM"),
        "stop_within": Setting(str, "how long it may take to end before it is killed", "10s"),
        "port_type": Setting(str, 'the type of what it stands on and listens at, such as "port"; "": nothing', ""),
        "environment": Setting(dict, "variables for the command", {}),
    }
    observe_every = 10.0

    def check(self) -> None:
        if not Path(self.settings["folder"]).is_absolute():
            raise ConfigError(f'"folder" must be an absolute path, not {quoted(self.settings["folder"])}')
        self._stop_signal()
        for name in ("ready_within", "stop_within"):
            self._seconds(name)
        ready = self.settings["ready"]
        if len(ready) > 1 or not ready.keys() <= {"port", "http", "command"}:
            raise ConfigError('"ready" must be { port = true }, { http = "/path" } or { command = [...] }')
        if ready.get("port", True) is not True:
            raise ConfigError('"ready": port must be true; the port is the leased one')
        path = ready.get("http", "/")
        if not isinstance(path, str) or not re.fullmatch("/[!-~]*", path):
            raise ConfigError(f'"ready": http must be a path such as "/health", not {quoted(path)}')
        commands = [check_command(self.settings["command"], "command")]
        if "command" in ready:
            commands.append(check_command(ready["command"], '"ready": command'))
        for name, value in self.settings["environment"].items():
            if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or not isinstance(value, str):
                raise ConfigError(f'"environment": {quoted(name)} must be a name with a string for its value')
        if self.settings["port_type"]:
            check_name(self.settings["port_type"], "port_type")
        elif ready.keys() & {"port", "http"} or any(
            found[1] in ("port", "address")
            for text in (*(a for c in commands for a in c), *self.settings["environment"].values())
            for found in PLACEHOLDER.finditer(text)
        ):
            raise ConfigError('a service that has a port needs the setting "port_type", such as "port"')
        next(self.plans({}))

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        root, port_type = self._root(), self.settings["port_type"]
        on = Need(port_type, passes_on=("port", "address")) if port_type else None
        for number in range(MOST_SERVICES):
            name = check_name(f"{self.name}-{number}", "service")
            attributes = {"folder": str(root / name)}
            if fits(attributes, wanted):
                lock = slot_lock("process", attributes["folder"])
                yield Plan(name, (lock,), attributes, on=on)

    def activate(self, resource: ResourceInfo) -> None:
        place = self._place(resource)
        values = self._values(resource, place)
        place.control.mkdir(mode=0o700, exist_ok=True)
        with self._stopped(place) as lock:  # what an earlier try has started ends first
            remove(place.folder)
            place.folder.mkdir(mode=0o700)
            place.ended.unlink(missing_ok=True)
            place.orders.unlink(missing_ok=True)
            os.mkfifo(place.orders, 0o600)
            self._start(place, values, lock)
        self._wait_until_ready(place, values)

    def destroy(self, resource: ResourceInfo) -> None:
        place = self._place(resource)
        if place.control.is_dir():
            with self._stopped(place):
                remove(place.folder)
                remove(place.control)
        remove(place.folder)

    def observe(self, resource: ResourceInfo) -> None:
        place = self._place(resource)
        values = self._values(resource, place)
        why = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            if not is_running(place):
                raise Gone(how_it_ended(place))
            why = self._not_ready(place, values)
            if not why:
                return
        raise Gone(f"it does not answer any more: {why}{last_words(place)}")

    def interface(self, resource: ResourceInfo) -> Local:
        return Local(str(self._place(resource).folder))

    # ---- starting and stopping

    def _start(self, place: "Place", values: Mapping[str, str], lock: int) -> None:
        command = [fill(argument, values) for argument in self.settings["command"]]
        stop = (str(int(self._stop_signal())), str(self._seconds("stop_within")))
        log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            subprocess.run(  # noqa: S603 - what the pool file says, and no shell
                [sys.executable, "-I", KEEPER, place.control, str(lock), *stop, place.folder, *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock], check=True,
                cwd="/", env=self._environment(values),
            )  # fmt: skip
        finally:
            os.close(log)

    @contextlib.contextmanager
    def _stopped(self, place: "Place") -> Iterator[int]:
        """With nothing of the service running; gives the lock that says so, which a keeper is to inherit."""
        lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + self._seconds("stop_within") + LATE_SECONDS
            told = False
            while not take(lock):
                told = told or tell_to_stop(place)
                if time.monotonic() > deadline:
                    raise TimeoutError("it does not end")
                time.sleep(LOOK_AGAIN_SECONDS)
            yield lock
        finally:
            os.close(lock)

    def _wait_until_ready(self, place: "Place", values: Mapping[str, str]) -> None:
        within = self._seconds("ready_within")
        deadline = time.monotonic() + within
        while True:
            if not is_running(place):
                raise RuntimeError(how_it_ended(place))
            why = self._not_ready(place, values)
            if not why:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"it was not ready within {within:g}s: {why}{last_words(place)}")
            time.sleep(LOOK_AGAIN_SECONDS)

    def _not_ready(self, place: "Place", values: Mapping[str, str]) -> str:
        """Why it is not ready; "" if it is."""
        ready = self.settings["ready"] or ({"port": True} if self.settings["port_type"] else {})
        try:
            if "command" in ready:
                command = [fill(argument, values) for argument in ready["command"]]
                done = subprocess.run(  # noqa: S603 - what the pool file says, and no shell
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    timeout=CHECK_SECONDS, cwd=place.folder, env=self._environment(values),
                )  # fmt: skip
                return f"{quoted(command[0])} ended with exit status {done.returncode}" if done.returncode else ""
            if "http" in ready:
                return answer(values["address"], int(values["port"]), ready["http"])
            if "port" in ready:
                return listens(values["address"], int(values["port"]))
        except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            return str(error) or type(error).__name__
        return ""

    # ---- what it is told

    def _values(self, resource: ResourceInfo, place: "Place") -> dict[str, str]:
        values = {"name": resource.name, "folder": str(place.folder)}
        if not self.settings["port_type"]:
            return values
        on = resource.on.attributes if resource.on else {}
        port, address = on.get("port"), on.get("address", "127.0.0.1")
        if type(port) is not int or not isinstance(address, str):
            raise ConfigError(f"what it stands on, of type {quoted(self.settings['port_type'])}, has no port")
        return {**values, "port": str(port), "address": address}

    def _environment(self, values: Mapping[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        return kept | {name: fill(value, values) for name, value in self.settings["environment"].items()}

    def _stop_signal(self) -> signal.Signals:
        name = self.settings["stop_signal"]
        known = [number.name.removeprefix("SIG") for number in signal.Signals]
        if name.removeprefix("SIG") not in known:
            raise ConfigError(
                f'"stop_signal" must be a signal such as "TERM", not {quoted(name)}; there are: {listed(known)}'
            )
        return signal.Signals[f"SIG{name.removeprefix('SIG')}"]

    def _seconds(self, name: str) -> float:
        return parse_duration(self.settings[name], name, least=0.0, most=LONGEST_SECONDS)

    def _root(self) -> Path:
        return checked_root(self.settings["folder"])

    def _place(self, resource: ResourceInfo) -> "Place":
        # Worked out anew from a name of one plain part; attributes are data, and never a path to delete.
        place = Place(self._root(), check_name(resource.name, "service"))
        if place.control.is_symlink():  # what is ours to make and to remove there is in our root, or it is not ours
            raise Refused(f"{quoted(place.control)} is a symbolic link, which would lead out of the root; remove it")
        return place


class Place(NamedTuple):
    """Where the files of one service are."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """The service's own."""
        return self.root / self.name

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def control(self) -> Path:
        """Its keeper's. No service can have this name."""
        return self.root / f".{self.name}"

    @property
    def lock(self) -> Path:
        return self.control / "lock"

    @property
    def orders(self) -> Path:
        return self.control / "orders"

    @property
    def ended(self) -> Path:
        return self.control / "ended"


def check_command(given: object, where: str) -> list[str]:
    """`given` if it is a program with arguments. Raises `ConfigError`."""
    if not isinstance(given, list) or not given or not all(isinstance(argument, str) for argument in given):
        raise ConfigError(f'{where} must be a list of strings such as ["redis-server", "--port", "{{port}}"]')
    if not given[0]:
        raise ConfigError(f"{where} must begin with a program")
    return given


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with the placeholders that we know filled in; other braces stay."""
    return PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def listens(address: str, port: int) -> str:
    """Why nobody listens there; "" if somebody does."""
    with socket.create_connection((address, port), CHECK_SECONDS) as connection:
        # Where nobody listens, the system may choose this very port for our end, and connect it with itself.
        return "nobody listens" if connection.getsockname() == connection.getpeername() else ""


def answer(address: str, port: int, path: str) -> str:
    """Why an HTTP server there is not well; "" if it is."""
    connection = http.client.HTTPConnection(address, port, timeout=CHECK_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    return "" if status < 400 else f"{path} answers {status}"


def take(lock: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def tell_to_stop(place: Place) -> bool:
    """False when there is nobody yet who hears it."""
    try:
        orders = os.open(place.orders, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.write(orders, b"stop")
    except OSError:
        return False
    finally:
        os.close(orders)
    return True


def is_running(place: Place) -> bool:
    try:
        lock = os.open(place.lock, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not take(lock)
    finally:
        os.close(lock)


def how_it_ended(place: Place) -> str:
    try:
        how = place.ended.read_text()
    except FileNotFoundError:
        how = "it was killed, with its keeper"
    return how + last_words(place)


def last_words(place: Place) -> str:
    """The end of its log, for the end of a sentence."""
    try:
        with place.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TOLD_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = " | ".join(line.strip() for line in lines if line.strip())
    return f"; it said last: {said}" if said else ""
