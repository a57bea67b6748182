"""Things that are leased while tests run. pytest finds this file by itself where Drydock is installed.

    # conftest.py
    from drydock.pytest_plugin import lease

    database = lease("database", scope="module")

    # test_orders.py
    def test_an_order_is_kept(database):
        connect(database.resource.attributes["url"])

    @pytest.mark.drydock("host", attributes={"arch": "arm64"})
    def test_it_boots(drydock_lease):
        boot(drydock_lease.resource.attributes["address"])

A fixture holds its lease for its scope. Tests that run at once in several processes (pytest-xdist), or in several runs,
wait for one another, in the order in which they asked. A lease that was lost fails the test that used it, since the thing
was somebody else's meanwhile, and the next test gets another one; so does the test after one that found the thing broken.

pytest loads this file in every run, also where nobody wants it. So it imports nothing before a test needs it.
"""

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .allocator import Lost
    from .api import Connection, Lease, Leases
    from .errors import LeaseLost
    from .request import Chosen
    from .waiting import Waiting

__all__ = ["lease"]

#: who waits for less is not told why
SILENT_SECONDS = 2.0
#: a renewal comes after this part of the ttl, and is tried again after that part
RENEW, RETRY = 1 / 3, 1 / 15

_URL = re.compile("[a-z][a-z0-9+.-]*:", re.IGNORECASE)

Breaks = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


@dataclass(eq=False, repr=False)  # the rest would cost each run of pytest a millisecond
class Wish:
    """What a fixture or a marker asks for."""

    type: str
    blueprint: "str | Sequence[str] | None" = None
    attributes: "Mapping[str, Any] | None" = None
    count: int = 1
    priority: int = 0
    owner: str | None = None
    wait: float | str | None = None
    ttl: float | str | None = None
    breaks_on: Breaks = ()


def lease(
    type: str,
    *,
    scope: Any = "function",
    name: str | None = None,
    autouse: bool = False,
    blueprint: "str | Sequence[str] | None" = None,
    attributes: "Mapping[str, Any] | None" = None,
    count: int = 1,
    priority: int = 0,
    owner: str | None = None,
    wait: float | str | None = None,
    ttl: float | str | None = None,
    breaks_on: Breaks = (),
) -> Any:
    """A fixture that holds a thing of `type`, and gives its tests the `drydock.api.Lease`; with `count` over 1, `Leases`.

    `scope`: "function" for a test, "module", "session" for a run; of several test processes each holds its own. `name`,
    `autouse`: as for `pytest.fixture`. `wait`: seconds, or text such as "10m"; if not given, `--drydock-wait`. `ttl`: the
    lease ends so long after its last renewal, and is renewed meanwhile; without, it ends with the process. `breaks_on`:
    when a test fails with one of these exceptions, or one for which this function says so, the thing is given back as
    broken. The others are those of `drydock.connect().lease`.
    """
    wish = Wish(type, blueprint, attributes, count, priority, owner, wait, ttl, breaks_on)

    def leased(request: pytest.FixtureRequest) -> "Iterator[Lease | Leases]":
        with _held(request, wish) as held:
            yield held

    leased.__doc__ = f"A lease of a {type}."
    return pytest.fixture(scope=scope, name=name, autouse=autouse)(leased)


@pytest.fixture
def drydock_lease(request: pytest.FixtureRequest) -> "Iterator[Lease | Leases]":
    """The lease that the test's marker asks for: @pytest.mark.drydock(TYPE, ...)."""
    marker = request.node.get_closest_marker("drydock")
    if marker is None:
        raise _failed('drydock_lease needs a marker that says of what, such as @pytest.mark.drydock("host")')
    try:
        wish = Wish(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise _failed(f"@pytest.mark.drydock: {str(error).removeprefix('Wish.__init__() ')}") from None
    with _held(request, wish) as held:
        yield held


def _factory(scope: Any, name: str, until: str) -> Any:
    def factory(request: pytest.FixtureRequest) -> "Iterator[Callable[..., Lease | Leases]]":
        with contextlib.ExitStack() as stack:

            def more(*what: Any, **how: Any) -> "Lease | Leases":
                return stack.enter_context(_leasing(request.config).hold(request, Wish(*what, **how)))

            yield more

    factory.__doc__ = (
        f"Called as @pytest.mark.drydock is, it gives one more lease each time, until the end of the {until}."
    )
    return pytest.fixture(scope=scope, name=name)(factory)


drydock_lease_factory = _factory("function", "drydock_lease_factory", "test")
drydock_module_lease_factory = _factory("module", "drydock_module_lease_factory", "module")
drydock_session_lease_factory = _factory("session", "drydock_session_lease_factory", "run")


# ---- what pytest asks for


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("drydock", "things that are leased while tests run")
    for name, metavar, help in (
        ("store", "PATH|URL", "Drydock's store; if not given, that of $DRYDOCK_STORE."),
        ("pool", "FILE", "Apply this pool file before the tests run."),
        ("wait", "DURATION", "A test fails that has waited for a thing for so long; if not given, for ever."),
    ):
        group.addoption(f"--drydock-{name}", metavar=metavar, help=help)
        parser.addini(f"drydock_{name}", f"{help} Overridden by --drydock-{name}.", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "drydock(type, blueprint=None, attributes=None, count=1, priority=0, owner=None, wait=None, ttl=None, breaks_on=()):"
        " hold a thing while the test runs; the fixture drydock_lease tells which.",
    )
    with _usage():
        _seconds(_setting(config, "wait"), "--drydock-wait")


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    pool = _place(config, "pool")
    if pool is None or config.option.collectonly or hasattr(config, "workerinput"):
        return
    from .api import connect

    with _usage(), connect(_place(config, "store")) as dock:
        dock.apply(pool)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("drydock") is None:
        return
    names = getattr(item, "fixturenames", None)
    if names is not None and "drydock_lease" not in names:
        # It is held before what belongs to the test alone is set up, and after what others use, too: who waits with
        # such a thing in his hands for one that another test process holds may wait for ever.
        known = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
        wider = [n for n, name in enumerate(names, 1) if name in known and known[name][-1].scope != "function"]
        names.insert(max(wider, default=0), "drydock_lease")


def _setting(config: pytest.Config, name: str) -> str | None:
    return config.getoption(f"drydock_{name}") or config.getini(f"drydock_{name}") or None


def _place(config: pytest.Config, name: str) -> str | None:
    """A path, seen from where pytest was called or from the file that says it; or a URL."""
    given = config.getoption(f"drydock_{name}")
    value = _setting(config, name)
    if value is None or _URL.match(value):
        return value
    folder = config.invocation_params.dir if given else config.inipath.parent if config.inipath else config.rootpath
    return str(folder / Path(value).expanduser())


def _seconds(value: float | str | None, where: str) -> float | None:
    if not isinstance(value, str):
        return value
    from .attributes import parse_duration

    return parse_duration(value, where)


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """What goes wrong here is told in one sentence, and no test runs."""
    try:
        yield
    except Exception as error:
        from .errors import DrydockError

        if isinstance(error, DrydockError):
            raise pytest.UsageError(f"drydock: {error}") from error
        raise


@contextlib.contextmanager
def _held(request: pytest.FixtureRequest, wish: Wish) -> "Iterator[Lease | Leases]":
    """What a fixture holds; what goes wrong is one sentence without a trace of us."""
    from .errors import DrydockError

    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(_leasing(request.config).hold(request, wish))
        except DrydockError as error:
            raise _failed(f"drydock: {error}") from None
        yield held


def _failed(sentence: str) -> BaseException:
    return pytest.fail.Exception(sentence, pytrace=False)


def _leasing(config: pytest.Config) -> "Leasing":
    found: Leasing | None = config.pluginmanager.get_plugin(Leasing.NAME)
    return found or Leasing(config)


# ---- leases


class Held:
    """Leases that one fixture holds."""

    def __init__(self, request: pytest.FixtureRequest, wish: Wish, leases: "tuple[Lease, ...]") -> None:
        self.request, self.wish, self.leases = request, wish, leases
        self.ttl = None if wish.ttl is None else _seconds(wish.ttl, "ttl")
        self.lost = ""  #: why
        self.broken = ""  #: why
        self.told = False  #: a test was failed since it is lost

    @property
    def about(self) -> str:
        return ", ".join(
            f"lease {one.id} ({one.resource.type} {one.resource.name}, fence {one.fence})" for one in self.leases
        )

    def is_used_by(self, item: pytest.Item) -> bool:
        """Whether it is this test's, as far as its arguments tell."""
        node, names = self.request.node, getattr(item, "fixturenames", ())
        return node is item or (node in item.listchain() and self.request.fixturename in names)

    def look(self) -> str:
        """Why it is lost; nothing if it is held, as far as that can be told now."""
        from .errors import LeaseLost, StoreError

        for one in self.leases:
            if self.lost:
                break
            try:
                if not one.given_back:
                    one.verify()
            except LeaseLost as error:
                self.lost = lost(one, error)
            except StoreError:  # who cannot be reached has not given it away yet; the end tells, if that lasts
                pass
        return self.lost

    def judge(self, test: str, error: BaseException) -> None:
        """Note that it is broken, if this error of a test says so."""
        from .errors import printable

        breaks = self.wish.breaks_on
        try:
            broken = isinstance(error, breaks) if isinstance(breaks, type | tuple) else breaks(error)
        except Exception as other:  # noqa: BLE001 - who cannot say that it is whole has it broken
            broken, error = True, other
        if broken and not self.broken:
            self.broken = printable(f"{test}: {type(error).__name__}: {error}")

    def give_back(self) -> None:
        """All of them, whatever happens; then the first error is raised."""
        from .errors import DrydockError

        first: DrydockError | None = None
        for one in self.leases:
            try:
                if not one.given_back:
                    one.release(broken=self.broken or None)
            except DrydockError as error:
                first = first or error
        if first is not None:
            raise first


class Leasing:
    """What one test process holds. It is there from the first lease on, and listens from then on to what tests come to."""

    NAME = "drydock-leases"

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.store = _place(config, "store")
        self.held: list[Held] = []
        self._dock: Connection | None = None
        self._renewing = Renewing(self.store)
        config.pluginmanager.register(self, self.NAME)
        config.add_cleanup(self.close)

    def close(self) -> None:
        self._renewing.close()
        if self._dock is not None:
            self._dock.close()

    @contextlib.contextmanager
    def hold(self, request: pytest.FixtureRequest, wish: Wish) -> "Iterator[Lease | Leases]":
        """Hold what is wished for. Losing it fails the test."""
        from .api import Lease

        leased = self._lease(request.node, wish)
        held = Held(request, wish, (leased,) if isinstance(leased, Lease) else tuple(leased))
        self.held.append(held)
        self._renewing.add(held)
        try:
            yield leased
        finally:
            self.held.remove(held)
            self._renewing.remove(held)
            self._end(held)

    def _lease(self, node: Any, wish: Wish) -> "Lease | Leases":
        from .api import connect

        wait = _setting(self.config, "wait") if wish.wait is None else wish.wait
        if self._dock is None:
            self._dock = connect(self.store)
        with Notice(self.config, node.nodeid) as notice:
            return self._dock.lease(
                wish.type,
                blueprint=wish.blueprint,
                attributes=wish.attributes,
                owner=wish.owner,
                priority=wish.priority,
                wait=_seconds(wait, "wait"),
                ttl=_seconds(wish.ttl, "ttl"),
                count=wish.count,
                progress=notice,
            )

    def _end(self, held: Held) -> None:
        from .errors import DrydockError

        lost = held.look()
        try:
            held.give_back()
        except DrydockError as error:
            raise _failed(f"drydock: {held.about} could not be given back: {error}") from None
        if lost and not held.told:
            raise _failed(f"drydock: {lost}")

    # ---- what tests come to

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """What was lost, or found broken, by a test before this one is held anew."""
        for held in [one for one in self.held if one.is_used_by(item)]:
            if held.broken or held.look():
                held.told = True  # no test has used it since
                # With all that was made of it, as if its tests were over.
                held.request._fixturedef.finish(held.request)  # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> "Generator[None, object, object]":
        try:
            result = yield
        except (KeyboardInterrupt, pytest.exit.Exception, pytest.skip.Exception):
            raise
        except BaseException as error:
            for held in self._lost_by(item):
                error.add_note(f"drydock: {held.lost}")
            raise
        for held in self._lost_by(item):
            raise _failed(f"drydock: {held.lost}")
        return result

    def _lost_by(self, item: pytest.Item) -> list[Held]:
        lost = [held for held in self.held if held.is_used_by(item) and held.look()]
        for held in lost:
            held.told = True
        return lost

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: "pytest.CallInfo[None]") -> None:
        error = call.excinfo.value if call.excinfo else None
        if error is None or isinstance(error, pytest.skip.Exception | pytest.xfail.Exception):
            return
        for held in [one for one in self.held if one.is_used_by(item)]:
            held.judge(item.nodeid, error)
            item.add_report_section(
                call.when, "drydock", held.about + (" is given back as broken" if held.broken else "")
            )


class Renewing:
    """Renews what has a ttl, in a thread and on a connection of its own: one belongs to the thread that opened it."""

    def __init__(self, store: str | None) -> None:
        self._store = store
        self._due: dict[Held, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, held: Held) -> None:
        if held.ttl is None:
            return
        with self._changed:
            self._due[held] = time.monotonic() + held.ttl * RENEW
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._go, name="drydock-renewing", daemon=True)
            self._thread.start()

    def remove(self, held: Held) -> None:
        with self._changed:
            self._due.pop(held, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _go(self) -> None:
        from .api import connect
        from .errors import DrydockError

        with contextlib.ExitStack() as stack:
            dock = None
            while (held := self._next()) is not None:
                pause = RENEW
                try:
                    if dock is None:
                        dock = stack.enter_context(connect(self._store))
                    lost = self._renew(dock, held)
                except DrydockError:  # whoever uses it asks himself whether it is still his
                    lost, pause = "", RETRY
                with self._changed:
                    if held not in self._due:
                        continue
                    held.lost = held.lost or lost
                    if held.lost:
                        del self._due[held]
                    else:
                        self._due[held] = time.monotonic() + (held.ttl or 0) * pause

    def _renew(self, dock: "Connection", held: Held) -> str:
        from .errors import LeaseLost

        for one in held.leases:
            try:
                if not one.given_back:
                    dock.renew(one.id, fence=one.fence)
            except LeaseLost as error:
                if not one.given_back:
                    return lost(one, error)
        return ""

    def _next(self) -> Held | None:
        """The next that is due, when it is; None: there will be none."""
        with self._changed:
            while not self._closed:
                held = min(self._due, key=self._due.__getitem__, default=None)
                left = None if held is None else self._due[held] - time.monotonic()
                if left is not None and left <= 0:
                    return held
                self._changed.wait(left)
        return None


def lost(lease: "Lease", error: "LeaseLost") -> str:
    """The sentence for who has lost a lease."""
    return f"{error} ({lease.resource.type} {lease.resource.name}); see: drydock show {lease.id}"


class Notice:
    """Tells on the screen why a test waits, once it has waited for a while, and again when that has changed."""

    def __init__(self, config: pytest.Config, who: str) -> None:
        self._config, self._who = config, who
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._due = False
        self._waiting: Waiting | None = None
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._waiting = None
            if self._timer is not None:
                self._timer.cancel()

    def __call__(self, news: "Waiting | Lost | Chosen") -> None:
        from .waiting import Waiting

        if not isinstance(news, Waiting):
            return
        with self._lock:
            self._waiting = news
            if self._timer is None:
                self._timer = threading.Timer(SILENT_SECONDS, self._time_is_up)
                self._timer.daemon = True
                self._timer.start()
            elif self._due:
                self._say()

    def _time_is_up(self) -> None:
        with self._lock:
            self._due = True
            self._say()

    def _say(self) -> None:
        if self._waiting is None:
            return
        from .cli.show import about, what, why

        sentence = f"{what(self._waiting)}: {why(self._waiting, live=False)}"
        if sentence == self._said:  # the estimate is another one each time, and no news
            return
        self._said = sentence
        worker = getattr(self._config, "workerinput", {}).get("workerid")
        line = f"drydock: {f'[{worker}] ' if worker else ''}{self._who} is {sentence}{about(self._waiting)}"
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            screen = self._config.pluginmanager.get_plugin("terminalreporter")
            if worker or screen is None:  # what one of several test processes prints is shown by nobody
                print(line, file=sys.__stderr__, flush=True)
            else:
                screen.ensure_newline()
                screen.write_line(line)
                screen.flush()
