"""Is the store as it promises to be? Every broken invariant, named, and a few things worth knowing. Nothing is changed."""

from collections.abc import Iterator

from .errors import quoted
from .model import Finding
from .store.audit import Audit
from .store.base import Store
from .store.records import texts


def examine(store: Store) -> list[Finding]:
    """All findings, broken promises first. The store may be open for reading only."""
    with store.read():
        found = [*promises(store), *_frozen(store)]
    return [*found, *store.health()]


def promises(store: Store) -> list[Finding]:
    """What is found in the rows. Part of a transaction that its caller has open."""
    return [
        *_damaged_rows(store),
        *_double_allocations(store),
        *_missing_locks(store),
        *_dead_holders(store),
        *_counts(store),
        *_others(store),
    ]


def _frozen(store: Store) -> Iterator[Finding]:
    to = store.moved_to()
    if to is not None:
        yield Finding(
            False, "frozen", f"the store is frozen, since it moved to {quoted(to)}; nothing can be changed in it"
        )


def _damaged_rows(store: Store) -> Iterator[Finding]:
    for row in Audit(store).damaged_rows():
        yield Finding(True, "damaged-row", f"{row.about} cannot be read ({row.reason}); restore a backup", [row.about])


def _double_allocations(store: Store) -> Iterator[Finding]:
    by_binding: dict[str, list[str]] = {}
    for binding, resource in Audit(store).bindings_held_twice():
        by_binding.setdefault(binding, []).append(f"resource:{resource}")
    for binding, holders in by_binding.items():
        yield Finding(
            True,
            "double-allocation",
            f"binding {quoted(binding)} is allocated {len(holders)} times: {', '.join(holders)}",
            holders,
        )


def _missing_locks(store: Store) -> Iterator[Finding]:
    held = {row.key: row.holder for row in store.slot_locks.all()}
    for holder, declared in Audit(store).declared():
        try:
            keys = texts(declared, "slot_locks")
        except (TypeError, ValueError):  # told as a damaged row
            continue
        for key in keys:
            if held.get(key) != holder:
                whose = f"{held[key]} holds it" if key in held else "nobody holds it"
                yield Finding(
                    True, "slot-lock-not-held", f"{holder} declared slot lock {quoted(key)}, but {whose}", [holder]
                )


def _dead_holders(store: Store) -> Iterator[Finding]:
    for key, holder in Audit(store).locks_of_the_dead():
        yield Finding(True, "dead-holder", f"slot lock {quoted(key)} is held by {holder}, which is gone", [holder])


def _counts(store: Store) -> Iterator[Finding]:
    audit = Audit(store)
    for id, count, number in audit.miscounted_resources():
        yield Finding(True, "miscount", f"resource:{id} counts {count} leases and has {number}", [f"resource:{id}"])
    for name, count, number in audit.miscounted_blueprints():
        yield Finding(True, "miscount", f"blueprint {quoted(name)} counts {count} live resources and has {number}")
    # What was there before the operator lowered a bound may stay, and is only worth knowing.
    for name, most, number, broken in audit.over_limit():
        sentence = f"blueprint {quoted(name)} has {number} live resources; its limit is {most}"
        yield Finding(bool(broken), "over-limit", sentence if broken else f"{sentence} by now, so it builds no more")
    for id, name, seats, number, broken in audit.over_seated():
        sentence = f"resource:{id} ({quoted(name)}) has {number} leases and {seats} seats"
        yield Finding(
            bool(broken),
            "over-seated",
            sentence if broken else f"{sentence} by now, so it takes no more",
            [f"resource:{id}"],
        )


def _others(store: Store) -> Iterator[Finding]:
    audit = Audit(store)
    for lease, resource in audit.leases_on_the_dead():
        yield Finding(
            True,
            "lease-on-the-dead",
            f"lease:{lease} is granted on resource:{resource}, which is gone",
            [f"lease:{lease}"],
        )
    for lease, resource, over in audit.carrying_wrongly():
        what = f"resource:{resource} stands on it" if over else f"carries resource:{resource}, which is gone"
        sentence = f"lease:{lease} is over, and {what}" if over else f"lease:{lease} {what}"
        yield Finding(True, "stands-on-nothing", sentence, [f"lease:{lease}", f"resource:{resource}"])
    for lease, resource, fence, latest in audit.fences_ahead():
        yield Finding(
            True,
            "fence-regression",
            f"lease:{lease} has fence {fence}, but resource:{resource} has given out only {latest}",
            [f"lease:{lease}", f"resource:{resource}"],
        )
    for event in store.events.latest(1, event="queue.not-served"):
        why = quoted(event.data.get("error"))
        yield Finding(True, "queue-not-served", f"something was freed and the queue could not be served: {why}")
    for lease, process in audit.waiting_for_nobody():
        if not store.is_alive(process):
            yield Finding(
                False,
                "dead-process",
                f"lease:{lease} belongs to a process that died; the next command ends it",
                [f"lease:{lease}"],
            )
