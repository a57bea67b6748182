"""drydock run"""

import os
import re
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from ..errors import BlueprintError, ConfigError, DrydockError, Gone, LeaseLost, quoted
from .app import App, end_as_interrupted, end_on_signals, pass_app, shared_options, tell
from .asking import Asking, request_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .. import running
    from ..model import Lease
    from ..running import Warn
    from . import show

DEFAULT_GRACE = "10s"
LONGEST_GRACE_SECONDS = 3600.0
#: how often it is asked for another thing when somebody outside was faster
MOST_TRIES = 5
OF_ATTRIBUTES = "DRYDOCK_ATTR_"

_NOT_IN_A_NAME = re.compile("[^A-Z0-9]")


@click.command(context_settings={"allow_interspersed_args": False})
@shared_options
@pass_app
@request_options
@click.option("--hold-on-fail", metavar="DURATION", help="If COMMAND fails, keep the lease for so long.")
@click.option(
    "--grace", metavar="DURATION", help=f"From SIGTERM to SIGKILL, when the lease ends; {DEFAULT_GRACE} if not given."
)
@click.option("--warn", metavar="SIGNAL@DURATION", help="Send this signal so long before the lease ends.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
def run(
    app: App, asking: Asking, hold_on_fail: str | None, grace: str | None, warn: str | None, command: tuple[str, ...]
) -> int:
    """Wait for a thing, run COMMAND while holding it, and give it back.

    \b
    drydock run --type host -- ./deploy.sh
    drydock run --type host --hold-on-fail 2h -- make test
    drydock run --type host --until +1h --warn USR1@5m -- ./soak.sh
    drydock run --type host -- sh -c 'ssh "$DRYDOCK_ATTR_ADDRESS" uptime'

    COMMAND finds what it holds in its environment: DRYDOCK_LEASE, DRYDOCK_FENCE, DRYDOCK_RESOURCE (the id), DRYDOCK_NAME,
    DRYDOCK_TYPE, DRYDOCK_STORE, and DRYDOCK_ATTR_ARCH for an attribute "arch": upper case, "_" for what is no letter or
    digit, text as it is, anything else as JSON. Where two attributes come to one name, the first in the order of the
    alphabet has it. With --count these describe the first, and DRYDOCK_LEASES, DRYDOCK_FENCES, DRYDOCK_RESOURCES and
    DRYDOCK_NAMES hold all, with commas between them.

    The lease lasts as long as COMMAND, and not longer than this process, also if that is killed. With --ttl it is
    renewed every third of that time. If it is lost or about to end, COMMAND and what it has started get SIGTERM, then
    SIGKILL, and the exit code is 124. What COMMAND leaves running is ended like that, too; what has put itself into a
    process group of its own, as a daemon does, is not.

    The exit code is that of COMMAND, 128+n if signal n ended it; 126 if it cannot be executed, 127 if there is no such
    command. Signals are passed on to it. stdout is COMMAND's alone: --json writes the leases to stderr.
    """
    from .. import running
    from ..attributes import parse_duration
    from . import objects, show

    if not command:
        raise click.UsageError("missing COMMAND; write it after --, as in: drydock run --type host -- make test")
    hold_seconds = None if hold_on_fail is None else parse_duration(hold_on_fail, "--hold-on-fail")
    grace_seconds = parse_duration(grace or DEFAULT_GRACE, "--grace", most=LONGEST_GRACE_SECONDS)
    if grace is not None and asking.ttl is not None and grace_seconds > asking.ttl / 4:
        raise ConfigError(f"--grace must be at most a quarter of --ttl, not {quoted(grace)}")
    warning = _parse_warn(warn)
    end_on_signals()
    app.store.listen()  # whoever ends the lease tells us
    with show.Progress() as progress:
        leases, handed = _obtain(app, asking, progress)
    held = False
    patience_seconds = app.store.patience_seconds
    if app.store.life_left() is not None:
        from ..engine import PATIENCE_SECONDS

        app.store.patience_seconds = min(patience_seconds, PATIENCE_SECONDS)
    with running.Signals() as signals:
        try:
            if app.json:
                show.json_lines(map(objects.lease, leases), err=True)
            ended = running.Running(
                list(command), environment(leases, app.store.url), _Held(app, leases), signals,
                tell=tell, grace=grace_seconds, warn=warning, mourner=_mourner(app), handed=handed,
            ).run()  # fmt: skip
            if not ended.lost:
                app.store.patience_seconds = patience_seconds
            if ended.code and not ended.lost and hold_seconds is not None:
                held = _hold(app, leases, hold_seconds)
        except running.NotStarted as error:
            tell(str(error))
            return error.code
        finally:
            for one in handed:
                one.socket.close()
            if not held:
                _give_back(app, leases)
    if ended.interrupted:
        end_as_interrupted(app)
    return ended.code


def _obtain(app: App, asking: Asking, progress: "show.Progress") -> "tuple[Sequence[Lease], list[running.Handed]]":
    """Hold what is asked for, with the open sockets that come with it.

    Somebody outside may take between the grant and our look what the sockets are for. Then we ask again: who hands it
    out sees that it is taken.
    """
    from .. import running

    for tries_left in range(MOST_TRIES - 1, -1, -1):
        leases = asking.lease(app, keep=False, progress=progress)
        handed: list[running.Handed] = []
        try:
            for resource in filter(None, (lease.resource for lease in leases)):
                handed += [running.Handed(resource.name, one) for one in app.engine.sockets(resource)]
            break
        except BaseException as error:
            for one in handed:
                one.socket.close()
            _give_back(app, leases)
            if not isinstance(error, Gone):
                raise
            if not tries_left:
                raise BlueprintError(resource.blueprint, "sockets", f"Gone: {error}") from error
    return leases, handed


def _mourner(app: App) -> "running.Mourner | None":
    """Where only our silence would tell others that we are dead, somebody of this machine, who can see it, says so."""
    from .. import running

    if app.store.life_left() is None or not sys.executable:
        return None
    environment = {**os.environb, b"DRYDOCK_STORE": os.fsencode(app.store.url)}
    # -P: what lies in the current folder is none of ours.
    return running.Mourner([sys.executable, "-P", "-m", "drydock", "worker", "--once"], environment)


class _Held:
    """The leases as `running` sees them."""

    def __init__(self, app: App, leases: "Sequence[Lease]") -> None:
        self.engine, self.store = app.engine, app.store
        self.leases = list(leases)

    @property
    def ttl(self) -> float | None:
        return min((lease.ttl for lease in self.leases if lease.ttl is not None), default=None)

    def seconds_left(self) -> float | None:
        # Where others hear of us only through a server, they believe us dead when they hear nothing for long enough.
        left = [self.store.life_left(), *(self.engine.seconds_left(lease.id) for lease in self.leases)]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def seconds_fixed(self) -> float | None:
        until = min((lease.until for lease in self.leases if lease.until is not None), default=None)
        return None if until is None else until - self.store.clock()

    def renew(self) -> None:
        self.leases = [self.engine.renew(lease.id, fence=lease.fence) for lease in self.leases]

    def verify(self) -> None:
        self.leases = [self.engine.verify(lease.id, fence=lease.fence) for lease in self.leases]

    def wait(self, seconds: float, wake: int) -> None:
        from select import select

        news = self.store.news_fileno()
        # The connection may be lost, and closed by another thread: the next look at the leases tells.
        with suppress(OSError, DrydockError):
            ready = select([wake] if news is None else [wake, news], [], [], seconds)[0]
            if news in ready:
                self.store.wait_for_news(0.0)


def environment(
    leases: "Sequence[Lease]", store: str, given: "Mapping[bytes, bytes]" = os.environb
) -> dict[bytes, bytes]:
    """What the command finds in its environment; nothing that an outer `drydock run` said of attributes is left."""
    first = leases[0]
    assert first.resource is not None
    said: dict[str, object] = {}
    for name, value in sorted(first.resource.attributes.items()):
        said.setdefault(OF_ATTRIBUTES + _NOT_IN_A_NAME.sub("_", name.upper()), value)
    resources = [lease.resource for lease in leases if lease.resource]
    said |= {
        "DRYDOCK_STORE": store,
        "DRYDOCK_LEASE": first.id,
        "DRYDOCK_FENCE": first.fence,
        "DRYDOCK_RESOURCE": first.resource.id,
        "DRYDOCK_NAME": first.resource.name,
        "DRYDOCK_TYPE": first.resource.type,
        "DRYDOCK_LEASES": _joined(lease.id for lease in leases),
        "DRYDOCK_FENCES": _joined(lease.fence for lease in leases),
        "DRYDOCK_RESOURCES": _joined(resource.id for resource in resources),
        "DRYDOCK_NAMES": _joined(resource.name for resource in resources),
    }
    outer = OF_ATTRIBUTES.encode()
    return {name: value for name, value in given.items() if not name.startswith(outer)} | {
        name.encode(): _text(value).encode(errors="surrogateescape") for name, value in said.items()
    }


def _joined(values: "Iterable[object]") -> str:
    return ",".join(map(str, values))


def _text(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _hold(app: App, leases: "Sequence[Lease]", seconds: float) -> bool:
    """The command failed: its leases outlive us, so that somebody can look. False if that could not be done."""
    from . import objects, show

    until = app.store.clock() + seconds
    try:
        for lease in leases:
            app.engine.keep(lease.id, until=until)
    except DrydockError as error:
        tell(f"the lease cannot be held: {error}")
        return False
    for lease in leases:
        name = show.cell(lease.resource.name if lease.resource else None)
        tell(
            f"the command failed: lease {lease.id} ({name}) is held until {objects.moment(until)};"
            f" give it back with: drydock release {lease.id}"
        )
    return True


def _give_back(app: App, leases: "Sequence[Lease]") -> None:
    for lease in leases:
        try:
            app.engine.release(lease.id, fence=lease.fence)
        except LeaseLost:
            pass
        except DrydockError as error:
            tell(f"lease {lease.id} could not be given back, and ends with this process: {error}")


def _parse_warn(text: str | None) -> "Warn | None":
    from ..attributes import parse_duration
    from ..running import Warn

    if text is None:
        return None
    name, at, before = text.partition("@")
    number = getattr(signal.Signals, f"SIG{name.upper().removeprefix('SIG')}", None)
    if not at or number is None:
        raise ConfigError(f"--warn: not a signal and a duration: {quoted(text)}; write USR1@60s")
    return Warn(number, parse_duration(before, "--warn"))
