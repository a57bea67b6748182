"""drydock copy-store"""

import os
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, quoted
from .app import App, end_on_signals, pass_app, shared_options
from .asking import parse_until

if TYPE_CHECKING:
    from ..store.base import Store


@click.command()
@click.argument("from_", metavar="FROM", type=click.Path(readable=False))
@click.argument("to", metavar="TO", required=False, type=click.Path(readable=False))
@click.option("--freeze", is_flag=True, help="FROM may be in use: nobody can write there from now on.")
@click.option("--until", metavar="WHEN", help="With --freeze: leases that have no end but their process's end then.")
@click.option("--plan", is_flag=True, help="Say what would be copied and what is in the way; change nothing.")
@click.option("--thaw", is_flag=True, help="Instead: let FROM be written again.")
@shared_options
@pass_app
def copy_store(app: App, from_: str, to: str | None, freeze: bool, until: str | None, plan: bool, thaw: bool) -> None:
    """Copy a whole store, live leases included, to another one that is empty.

    FROM and TO are paths or URLs, as for --store, which is not looked at. Everything is copied, and keeps its number; no
    number and no fence comes a second time. All of it arrives, checked as `drydock doctor` does, or nothing.

    \b
    drydock copy-store --plan --freeze old.db postgresql://db/drydock   would it go well now?
    drydock copy-store old.db new.db                              nothing is held or waited for in old.db
    drydock copy-store --freeze old.db postgresql://db/drydock    move while things are held
    drydock copy-store --freeze postgresql://db/drydock new.db    and back
    drydock copy-store --thaw old.db                              use the old one again

    While something is held or waited for, --freeze is needed. From then on whatever would change FROM ends with exit code
    7 and says where the store has gone; lists and `doctor` still answer. Then give every user the new address, as with
    DRYDOCK_STORE. Leases go on: `renew` and `release` them at TO, with the seconds that they have left. Requests that wait
    end; ask again at TO. `drydock run` cannot follow: with --ttl or --until it stops its command before its time is over,
    as the new store knows it, so leave its lease alone until then; without, it is refused (9) unless --until gives it an end.
    Refused is also what a hook is at work on.

    If the copy fails, FROM is thawed; if it was killed, FROM stays frozen: copy it again, or thaw it. Thaw a store only
    when the other is not used, or both give out the same things.
    """
    end = parse_until(until)
    if thaw:
        if to is not None or freeze or plan or until is not None:
            raise click.UsageError("--thaw goes with FROM alone")
        _thaw(app, from_)
        return
    if to is None:
        raise click.UsageError("missing TO, the store to copy to")
    if end is not None and not freeze:
        raise click.UsageError("--until goes with --freeze")
    if plan:
        _plan(app, from_, to, freeze, end)
        return
    end_on_signals()
    _copy(app, from_, to, freeze, end)


def _copy(app: App, from_: str, to: str, freeze: bool, until: float | None) -> None:
    from ..moving import copy_store
    from ..store import open_store
    from . import show

    with ExitStack() as stack:
        source = stack.enter_context(closing(_existing(from_)))
        target = stack.enter_context(closing(open_store(to)))
        progress = stack.enter_context(_Progress())
        moved = copy_store(source, target, freeze=freeze, until=until, progress=progress)
        addresses = source.address, target.address
    copied = moved.copied
    if app.json:
        show.json_lines(
            [
                {
                    "from": addresses[0], "to": addresses[1], "frozen": moved.frozen, "rows": copied.rows,
                    "live": copied.live, "unbound": copied.unbound, "given_up": copied.over,
                }
            ]
        )  # fmt: skip
        return
    for table, number in copied.rows.items():
        click.echo(f"{table}: {number}")
    click.echo(f"{copied.live} leases go on, {len(copied.over)} requests that waited are over")
    if copied.unbound:
        click.echo(
            f"{len(copied.unbound)} of the leases no longer end with their process, but at the end that they have"
        )
    click.echo(f"all promises hold in {quoted(addresses[1])}; use it from now on, as with: DRYDOCK_STORE", err=True)
    if not moved.frozen:
        click.echo(f"{quoted(addresses[0])} can still be used, and knows nothing of the other", err=True)


def _plan(app: App, from_: str, to: str, freeze: bool, until: float | None) -> None:
    from ..moving import plan_copy
    from ..store import find_store, open_store
    from . import show

    with ExitStack() as stack:
        source = stack.enter_context(closing(open_store(_named(from_), read_only=True)))
        target = find_store(to)
        if target.store is not None:
            stack.enter_context(closing(target.store))
        planned = plan_copy(source, target, freeze=freeze, until=until)
        address, frozen = source.address, source.is_frozen()
    if app.json:
        show.json_lines(
            [
                {
                    "plan": True, "from": address, "to": target.address, "frozen": frozen or freeze,
                    "rows": planned.rows, "live": len(planned.live), "unbound": planned.unbound,
                    "given_up": planned.waiting, "over": planned.over,
                }
            ]
        )  # fmt: skip
        return
    for table, number in planned.rows.items():
        click.echo(f"{table}: {number}")
    click.echo(f"{len(planned.live)} leases would go on, {len(planned.waiting)} requests that wait would be over")
    if planned.unbound:
        click.echo(f"{len(planned.unbound)} of the leases would no longer end with their process, but at their end")
    if planned.over:
        click.echo(f"{len(planned.over)} that are over would be ended first")
    there = "is empty" if target.store is not None else "would be made"
    click.echo(f"{quoted(target.address)} {there}; nothing is in the way, and nothing was changed", err=True)


def _thaw(app: App, from_: str) -> None:
    from ..moving import thaw
    from . import show

    with closing(_existing(from_)) as store:
        thawed = thaw(store)
        address = store.address
    if app.json:
        show.json_lines([{"store": address, "thawed": thawed}])
    else:
        click.echo(f"{quoted(address)}: {'thawed' if thawed else 'was not frozen'}")


def _existing(address: str) -> "Store":
    """A store that is there; none is made."""
    from ..store import open_store

    open_store(_named(address), read_only=True).close()
    return open_store(address)


def _named(address: str) -> str:
    if not address:
        raise ConfigError("FROM is empty; give a path or a URL")
    return address


class _Progress:
    """Tells on a terminal how far it is."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
        self._shown = 0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._show("")

    def __call__(self, table: str, done: int, total: int) -> None:
        self._show(f"{table}: {done} of {total}")

    def _show(self, text: str) -> None:
        if self._is_shown:
            click.echo(f"\r{text:{self._shown}}\r{text}", nl=False, err=True)
            self._shown = len(text)
