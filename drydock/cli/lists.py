"""drydock leases, resources, blueprints, bindings, locks, log: who holds what, and what happened."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from .app import App, pass_app, shared_options

if TYPE_CHECKING:
    from ..model import Event

MOST_FINISHED = 1000


@click.command()
@click.option("--all", "-a", "everything", is_flag=True, help=f"With those that are over: the newest {MOST_FINISHED}.")
@click.option("--owner", metavar="NAME", help="Only those of this owner.")
@click.option("--waiting", "-w", is_flag=True, help="Only requests that wait: their place in the queue, and why.")
@shared_options
@pass_app
def leases(app: App, everything: bool, owner: str | None, waiting: bool) -> None:
    """List leases: who holds what since when, and who waits.

    With --waiting, "about" is how long each will wait if those in the way keep their things as long as such things were
    kept lately, or until their leases end; "-" where that is not known.

    \b
    drydock leases
    drydock leases --owner ci@runner7 --json
    drydock leases --waiting
    """
    from . import objects, show

    if waiting:
        if everything:
            raise click.UsageError("--waiting and --all exclude one another")
        _waiting(app, owner)
        return
    store = app.fresh_store
    found = store.leases.latest(MOST_FINISHED) if everything else store.leases.live()
    found = [lease for lease in found if owner is None or lease.owner == owner]
    ends = store.leases.ends()
    if app.json:
        show.json_lines(objects.held_until(lease, ends.get(lease.id)) for lease in found)
        return
    show.table(
        (
            "id",
            "status",
            "type",
            "resource",
            "blueprint",
            "owner",
            "priority",
            "fence",
            "age",
            "held",
            "left",
            "wanted",
        ),
        [
            (
                lease.id,
                lease.status,
                lease.type,
                lease.resource and lease.resource.name,
                lease.resource and lease.resource.blueprint,
                lease.owner,
                lease.priority,
                lease.fence,
                show.ago(lease.created_at),
                show.ago(lease.granted_at, lease.ended_at),
                show.left(ends.get(lease.id)),
                lease.attributes,
            )
            for lease in found
        ],
        empty="no leases",
        spare=("priority", "fence", "left", "wanted"),
    )


def _waiting(app: App, owner: str | None) -> None:
    from ..waiting import everybody
    from . import objects, show

    store = app.fresh_store
    with store.read():
        asked = {lease.id: lease for lease in store.leases.live() if owner in (None, lease.owner)}
        found = [(asked[why.leases[0]], why) for why in everybody(store) if why.leases[0] in asked]
    if app.json:
        show.json_lines(objects.waiting(lease, why) for lease, why in found)
        return
    show.table(
        ("rank", "id", "type", "owner", "priority", "count", "age", "about", "wanted", "why"),
        [
            (
                why.rank,
                lease.id,
                lease.type,
                lease.owner,
                lease.priority,
                why.wanted,
                show.ago(lease.created_at),
                "-" if why.estimate_seconds is None else show.roughly(why.estimate_seconds),
                lease.attributes,
                show.why(why, live=True),
            )
            for lease, why in found
        ],
        empty="nobody waits",
        spare=("priority", "wanted", "attributes"),
    )


@click.command()
@click.option("--all", "-a", "everything", is_flag=True, help=f"With those that are gone: the newest {MOST_FINISHED}.")
@shared_options
@pass_app
def resources(app: App, everything: bool) -> None:
    """List resources: what is under management, and in which state.

    \b
    drydock resources
    """
    from . import objects, show

    found = app.fresh_store.resources.latest(MOST_FINISHED) if everything else app.fresh_store.resources.live()
    if app.json:
        show.json_lines(map(objects.resource, found))
        return
    show.table(
        ("id", "status", "type", "name", "blueprint", "leases", "idle", "note", "attributes"),
        [
            (
                resource.id,
                resource.status,
                resource.type,
                resource.name,
                resource.blueprint,
                f"{resource.used} of {resource.seats or 'any'}",
                "-" if resource.used else show.ago(resource.idle_since),
                show.note(resource),
                resource.attributes,
            )
            for resource in found
        ],
        empty="no resources",
        spare=("attributes", "idle", "note"),
    )


@click.command()
@click.option("--kinds", is_flag=True, help="List the kinds that blueprints can be of, and where each comes from.")
@shared_options
@pass_app
def blueprints(app: App, kinds: bool) -> None:
    """List blueprints, or with --kinds what they can be made of.

    \b
    drydock blueprints
    drydock blueprints --kinds
    """
    from . import objects, show

    if kinds:
        _kinds(app)
        return
    found = app.store.offers.blueprints()
    if app.json:
        show.json_lines(map(objects.blueprint, found))
        return
    show.table(
        ("name", "kind", "type", "enabled", "resources", "limit", "seats"),
        [(b.name, b.kind, b.type, b.enabled, b.live, b.limit, b.seats or "unlimited") for b in found],
        empty="no blueprints; add some with: drydock apply FILE",
    )


def _kinds(app: App) -> None:
    from ..attributes import canonical
    from ..discovery import describe_kinds
    from . import show

    found = describe_kinds()
    if app.json:
        show.json_lines(found)
        return
    show.table(
        ("kind", "type", "from", "about", "settings"),
        [
            (k["kind"], k["type"], k["origin"], k["error"] or k["summary"], _settings(k["settings"], canonical))
            for k in found
        ],
        empty="no kinds are installed",
        spare=("settings",),
    )


def _settings(settings: Mapping[str, Any], written: Callable[[object], str]) -> str:
    """Each with its type, and with its default where it may be left out."""
    told = (
        f"{name}: {s['type']}" + ("" if s["required"] else f" = {written(s['default'])}")
        for name, s in settings.items()
    )
    return ", ".join(told) or "-"


@click.command()
@shared_options
@pass_app
def bindings(app: App) -> None:
    """List bindings: the real things that pools hand out, and which resource stands on each.

    \b
    drydock bindings
    """
    from . import objects, show

    found = app.fresh_store.offers.bindings()
    if app.json:
        show.json_lines(map(objects.binding, found))
        return
    show.table(
        ("name", "blueprint", "enabled", "resource"),
        [(b.name, b.blueprint, b.enabled, b.resource) for b in found],
        empty="no bindings; add some with: drydock apply FILE",
    )


@click.command()
@shared_options
@pass_app
def locks(app: App) -> None:
    """List the slot locks that are held, and by whom.

    \b
    drydock locks
    """
    from . import show

    found = app.fresh_store.slot_locks.all()
    if app.json:
        from . import objects

        show.json_lines(map(objects.lock, found))
        return
    show.table(
        ("key", "holder", "for"),
        [(k.key, k.holder, show.ago(k.taken_at)) for k in found],
        empty="no slot locks are held",
    )


@click.command()
@click.argument("about", required=False, metavar="[lease:N|resource:N]")
@click.option("--event", metavar="NAME", help="Only events of this name, such as slot-lock.lost.")
@click.option(
    "--lines", "-n", default=50, show_default=True, type=click.IntRange(1, 100_000), help="So many, the newest."
)
@click.option("--follow", "-f", is_flag=True, help="Go on as things happen, until ^C.")
@shared_options
@pass_app
def log(app: App, about: str | None, event: str | None, lines: int, follow: bool) -> None:
    """Show what happened: every decision, with the ids that it was about.

    \b
    drydock log
    drydock log lease:12
    drydock log --event slot-lock.lost --json
    """
    from .history import events_about, is_about, parse_subject, print_events

    subject = parse_subject(about) if about else None

    def wanted(events: "list[Event]") -> "list[Event]":
        return [e for e in events if event in (None, e.event) and (subject is None or is_about(e, subject))]

    with app.store.read():  # what is committed between the two questions would be shown by neither
        last = app.store.events.latest(1)
        newest = events_about(app, subject, lines) if subject else app.store.events.latest(lines, event=event)
    print_events(app, wanted(newest))
    seen = last[0].id if last else 0
    while follow:
        app.store.wait_for_news(3600.0)
        fresh = app.store.events.after(seen)
        seen = fresh[-1].id if fresh else seen
        print_events(app, wanted(fresh))
