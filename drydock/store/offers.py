"""What is offered: blueprints, the sources they share, and the shapes and bindings of pools.

Everything here changes only when somebody applies a pool file or throws a switch, and each such change raises the
`config` number, so that what was worked out from it can be kept until then.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attributes import canonical
from ..model import Binding, Blueprint
from .records import check_texts, pairs, reads, texts

if TYPE_CHECKING:
    from .base import Store

_BLUEPRINT = "id, name, kind, type, source, seats, most, grace, pooled, hooks, enabled = 1 AND listed = 1, live, cooldown, lifetime, ttl, per_lease, observe_every"
_FREE = "b.resource IS NULL AND b.enabled = 1 AND b.in_service = 1 AND b.listed = 1 AND b.missing = 0"
_SITE = "b.id, b.name, b.blueprint, b.shape, b.slot_lock, b.lease_locks, b.attributes, b.fence"


class Shape(NamedTuple):
    """A set of attributes that `things` listed bindings of one blueprint have in common."""

    id: int
    attributes: Mapping[str, Any]
    things: int


class Site(NamedTuple):
    """A binding that a resource could be built on."""

    id: int
    name: str
    blueprint: int
    shape: int
    slot_lock: str
    lease_locks: str
    attributes: Mapping[str, Any]
    fence: int


class Declared(NamedTuple):
    """A binding as its blueprint declares it, ready to be kept."""

    name: str
    slot_lock: str
    lease_locks: str
    attributes: str
    in_service: bool
    shape: str
    traits: Mapping[str, str]


class Offers:
    def __init__(self, store: "Store") -> None:
        self._store = store

    # ---- blueprints and sources

    def config(self) -> int:
        """A number that has grown since whatever is kept here last changed."""
        row = self._store.row("SELECT config FROM store WHERE id = 1")
        return row[0] if row else 0

    def changed(self) -> None:
        """Note that something did; who waits may be able to go on."""
        self._store.run("UPDATE store SET config = config + 1 WHERE id = 1")
        self._store.offered += 1
        for type in self._store.leases.waited_for():
            self._store.freed(type)

    def blueprints(self) -> list[Blueprint]:
        rows = self._store.rows(f"SELECT {_BLUEPRINT} FROM blueprint ORDER BY id")
        return self._store.records(rows, _blueprint)

    def blueprint(self, name: str) -> Blueprint | None:
        row = self._store.row(f"SELECT {_BLUEPRINT} FROM blueprint WHERE name = :name", name=name)
        return _blueprint(row) if row else None

    def settings(self, blueprint: int) -> dict[str, Any]:
        """The settings of its kind, as the pool file gave them. A pool's may be as large as the pool."""
        row = self._store.row("SELECT blueprint, data FROM settings WHERE blueprint = :id", id=blueprint)
        return _settings(row) if row else {}

    def save_blueprint(self, blueprint: Blueprint, settings: Mapping[str, Any]) -> int:
        """Insert it, or replace the one of the same name, whose id, live count and switch stay; return the id."""
        row = self._store.row(
            "INSERT INTO blueprint (name, kind, type, source, seats, most, grace, pooled, hooks, enabled, listed, live, bounded_at,"
            " cooldown, lifetime, ttl, per_lease, observe_every, observe_at)"
            " VALUES (:name, :kind, :type, :source, :seats, :most, :grace, :pooled, :hooks, 1, 1, 0, 0, :cooldown, :lifetime, :ttl,"
            " :per_lease, :observe_every, :observe_at)"
            " ON CONFLICT (name) DO UPDATE SET kind = :kind, type = :type, source = :source,"
            " seats = :seats, most = :most, grace = :grace, pooled = :pooled, hooks = :hooks, listed = 1,"
            " cooldown = :cooldown, lifetime = :lifetime, ttl = :ttl, per_lease = :per_lease,"
            " observe_every = :observe_every, observe_at = :observe_at,"
            " bounded_at = CASE WHEN COALESCE(blueprint.seats, 0) = COALESCE(:seats, 0)"
            " AND COALESCE(blueprint.most, 0) = COALESCE(:most, 0) THEN blueprint.bounded_at ELSE :now END"
            " RETURNING id",
            name=blueprint.name,
            kind=blueprint.kind,
            type=blueprint.type,
            source=blueprint.source,
            seats=blueprint.seats,
            most=blueprint.limit,
            grace=blueprint.grace,
            pooled=int(blueprint.pooled),
            hooks=" ".join(sorted(blueprint.hooks)),
            cooldown=blueprint.cooldown,
            lifetime=blueprint.lifetime,
            ttl=blueprint.ttl,
            per_lease=canonical(blueprint.per_lease),
            observe_every=blueprint.observe_every,
            observe_at=self._store.clock() if blueprint.pooled and blueprint.observe_every is not None else None,
            now=self._after_all_of(blueprint.name),
        )
        assert row is not None
        self._store.run(
            "INSERT INTO settings (blueprint, data) VALUES (:id, :data) ON CONFLICT (blueprint) DO UPDATE SET data = :data",
            id=row[0],
            data=canonical(settings),
        )
        return int(row[0])

    def _after_all_of(self, blueprint: str) -> float:
        """Now, but not before what was made or granted there already by a clock that has been set back since."""
        latest = self._store.row(
            "SELECT max(r.created_at), max(l.granted_at) FROM blueprint b JOIN resource r ON r.blueprint = b.id"
            " AND r.status <> 'destroyed' LEFT JOIN lease l ON l.resource = r.id AND l.status <> 'destroyed' WHERE b.name = :name",
            name=blueprint,
        )
        return max(self._store.clock(), *(moment or 0.0 for moment in latest or ()))

    def switch_blueprint(self, name: str, enabled: bool) -> bool:
        """Set the switch; False if there is no such blueprint."""
        return bool(
            self._store.change(
                "UPDATE blueprint SET enabled = :enabled WHERE name = :name",
                name=name,
                enabled=int(enabled),
            )
        )

    def built_types(self) -> set[str]:
        """The types that builders make."""
        return {type for (type,) in self._store.rows("SELECT DISTINCT type FROM blueprint WHERE pooled = 0")}

    def is_listed(self, name: str) -> bool:
        """Whether the pool file that was last applied with --prune had it, or a later one has."""
        row = self._store.row("SELECT listed FROM blueprint WHERE name = :name", name=name)
        return bool(row and row[0])

    def prune_blueprint(self, name: str) -> None:
        """Note that the pool file no longer has it: it takes no new leases until a file has it again."""
        self._store.run("UPDATE blueprint SET listed = 0 WHERE name = :name", name=name)

    def take_room(self, blueprint: int) -> bool:
        """Count one more live resource, unless that would be over the blueprint's limit or it is switched off."""
        return bool(
            self._store.change(
                "UPDATE blueprint SET live = live + 1"
                " WHERE id = :id AND enabled = 1 AND listed = 1 AND (most IS NULL OR live < most)",
                id=blueprint,
            )
        )

    def has_room(self, blueprint: int) -> bool:
        """Whether it may have one more live resource."""
        return bool(
            self._store.rows(
                "SELECT 1 FROM blueprint WHERE id = :id AND enabled = 1 AND listed = 1 AND (most IS NULL OR live < most)",
                id=blueprint,
            )
        )

    def live(self, blueprint: int) -> int:
        """How many of its resources are alive, broken ones included."""
        row = self._store.row("SELECT live FROM blueprint WHERE id = :id", id=blueprint)
        return row[0] if row else 0

    def free_room(self, blueprint: int) -> None:
        self._store.run("UPDATE blueprint SET live = live - 1 WHERE id = :id", id=blueprint)

    def sources(self) -> dict[str, Any]:
        """The shared tables, by name."""
        return {row[0]: read_source(row) for row in self._store.rows("SELECT name, data FROM source")}

    def save_source(self, name: str, data: Mapping[str, Any]) -> None:
        self._store.run(
            "INSERT INTO source (name, data) VALUES (:name, :data) ON CONFLICT (name) DO UPDATE SET data = :data",
            name=name,
            data=canonical(data),
        )

    # ---- shapes and bindings

    def shapes(self, blueprint: int) -> list[Shape]:
        """The shapes that a blueprint has; a builder has one, without attributes."""
        rows = self._store.rows(
            "SELECT id, attributes, things FROM shape WHERE blueprint = :blueprint ORDER BY id",
            blueprint=blueprint,
        )
        return [_shape(row) for row in rows]

    def first_free_site(self, shapes: Sequence[int]) -> Site | None:
        """The first free binding of these shapes, in the order in which they were declared."""
        names, parameters = numbered(shapes)
        row = self._store.row(
            f"SELECT {_SITE} FROM shape s JOIN binding b ON b.id = (SELECT b.id FROM binding b"
            f" WHERE b.shape = s.id AND {_FREE} ORDER BY b.id LIMIT 1) WHERE s.id IN ({names}) ORDER BY b.id LIMIT 1",
            **parameters,
        )
        return _site(row) if row else None

    def free_sites(self, shape: int, most: int) -> list[Site]:
        """The first `most` free bindings of a shape."""
        rows = self._store.rows(
            f"SELECT {_SITE} FROM binding b WHERE b.shape = :shape AND {_FREE} ORDER BY b.id LIMIT :most",
            shape=shape,
            most=most,
        )
        return [_site(row) for row in rows]

    def sites_with_trait(self, name: str, value: str, shapes: Sequence[int]) -> list[tuple[Site, bool, int | None]]:
        """The listed bindings with one trait: each with whether it is free, and the resource that holds it."""
        rows = self._store.rows(
            f"SELECT {_SITE}, CASE WHEN {_FREE} THEN 1 ELSE 0 END, b.resource"
            " FROM trait t JOIN binding b ON b.id = t.binding"
            " WHERE t.name = :name AND t.value = :value AND b.listed = 1 ORDER BY b.id",
            name=name,
            value=value,
        )
        return [(_site(row[:8]), bool(row[8]), row[9]) for row in rows if row[3] in shapes]

    def hold(self, slot_lock: str, resource: int) -> None:
        """Note, on every binding with this slot lock, which resource holds it: none of them is free now."""
        self._store.run(
            "UPDATE binding SET resource = :resource WHERE slot_lock = :slot_lock",
            slot_lock=slot_lock,
            resource=resource,
        )

    def let_go(self, resource: int, fence: int) -> None:
        """Note that the resource is gone, and how far its fence had come."""
        self._store.run(
            "UPDATE binding SET resource = NULL, fence = :fence WHERE resource = :resource",
            resource=resource,
            fence=fence,
        )

    def bindings(self) -> list[Binding]:
        """Every binding that is listed, or that a live resource still stands on."""
        rows = self._store.rows(
            "SELECT b.id, b.name, p.name, b.enabled = 1 AND b.in_service = 1 AND b.listed = 1 AND b.missing = 0, b.resource"
            " FROM binding b JOIN blueprint p ON p.id = b.blueprint"
            " WHERE b.listed = 1 OR b.resource IS NOT NULL ORDER BY p.id, b.id"
        )
        return self._store.records(rows, _binding)

    def switch_binding(self, name: str, blueprint: str | None, enabled: bool) -> int:
        """Set the switch of every binding of this name, in one blueprint or in all; return how many there are."""
        rows = self._store.rows(
            "UPDATE binding SET enabled = :enabled WHERE name = :name AND (listed = 1 OR resource IS NOT NULL)"
            " AND (CAST(:blueprint AS TEXT) IS NULL OR blueprint IN (SELECT id FROM blueprint WHERE name = :blueprint)) RETURNING blueprint",
            name=name,
            blueprint=blueprint,
            enabled=int(enabled),
        )
        for (touched,) in set(rows):
            self.refresh_resources(touched)
        return len(rows)

    # ---- what is missing

    def to_observe(self, now: float) -> list[str]:
        """The pools in use that are to be asked what is missing."""
        rows = self._store.rows(
            "SELECT name FROM blueprint WHERE observe_at IS NOT NULL AND observe_at <= :now AND listed = 1 ORDER BY id",
            now=now,
        )
        return [name for (name,) in rows]

    def take_look(self, name: str, now: float) -> bool:
        """Have the next look at this pool, unless somebody else has it; the one after that is due in its time."""
        return bool(
            self._store.change(
                "UPDATE blueprint SET observe_at = :now + observe_every WHERE name = :name AND observe_at <= :now",
                name=name,
                now=now,
            )
        )

    def leased(self, blueprint: int) -> list[str]:
        """The names of the bindings on which there are leases."""
        rows = self._store.rows(
            "SELECT b.name FROM binding b JOIN resource r ON r.id = b.resource WHERE b.blueprint = :blueprint AND r.used > 0"
            " AND b.resource IS NOT NULL ORDER BY b.id",
            blueprint=blueprint,
        )
        return [name for (name,) in rows]

    def fences(self, blueprint: int) -> dict[str, int]:
        """The fence of each binding, by name: it has grown where one was leased since."""
        rows = self._store.rows(
            "SELECT b.name, COALESCE(r.fence, b.fence) FROM binding b LEFT JOIN resource r ON r.id = b.resource"
            " WHERE b.blueprint = :blueprint",
            blueprint=blueprint,
        )
        return dict(rows)

    def withhold(self, resource: int) -> bool:
        """Withhold what this resource stands on until the next look finds it. False where nobody looks."""
        return bool(
            self._store.change(
                "UPDATE binding SET missing = 1 WHERE id = (SELECT binding FROM resource WHERE id = :resource)"
                " AND blueprint IN (SELECT id FROM blueprint WHERE observe_every IS NOT NULL)",
                resource=resource,
            )
        )

    def set_missing(self, blueprint: int, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Withhold the bindings of these names, and no other; return those that went missing now, and those that are back."""
        missing = set(names)
        gone: list[str] = []
        back: list[str] = []
        for id, name, was_missing in self._store.rows(
            "SELECT id, name, missing FROM binding WHERE blueprint = :blueprint ORDER BY id", blueprint=blueprint
        ):
            if (name in missing) != bool(was_missing):
                (back if was_missing else gone).append(name)
                self._store.run(
                    "UPDATE binding SET missing = :missing WHERE id = :id", id=id, missing=int(not was_missing)
                )
        if gone or back:
            self.refresh_resources(blueprint)
        return gone, back

    def declared(self, blueprint: int) -> dict[str, tuple[int, Declared, bool]]:
        """The bindings kept for a blueprint, by name: id, declaration, and whether it is still listed."""
        traits: dict[int, dict[str, str]] = {}
        for binding, name, value in self._store.rows(
            "SELECT t.binding, t.name, t.value FROM binding b JOIN trait t ON t.binding = b.id WHERE b.blueprint = :blueprint",
            blueprint=blueprint,
        ):
            traits.setdefault(binding, {})[name] = value
        rows = self._store.rows(
            "SELECT b.id, b.listed, b.name, b.slot_lock, b.lease_locks, b.attributes, b.in_service, s.attributes"
            " FROM binding b JOIN shape s ON s.id = b.shape WHERE b.blueprint = :blueprint ORDER BY b.id",
            blueprint=blueprint,
        )
        kept = {}
        for id, listed, name, slot_lock, locks, attributes, in_service, shape in rows:
            declared = Declared(name, slot_lock, locks, attributes, bool(in_service), shape, traits.get(id, {}))
            kept[name] = (id, declared, bool(listed))
        return kept

    def declare(self, blueprint: int, wanted: Iterable[Declared]) -> None:
        """Make the kept bindings of a blueprint the `wanted` ones.

        A binding that is not wanted any more is forgotten, or, when it was ever handed out, marked as not listed.
        The operator's switches stay as they are.
        """
        wanted = list(wanted)
        kept = self.declared(blueprint)
        shapes = self._save_shapes(blueprint, wanted)
        for declared in wanted:
            id, old, listed = kept.pop(declared.name, (None, None, False))
            if old == declared and listed:
                continue
            id = self._save_binding(blueprint, shapes[declared.shape], declared)
            self._store.run("DELETE FROM trait WHERE binding = :id", id=id)
            for name, value in declared.traits.items():
                self._store.run(
                    "INSERT INTO trait (name, value, binding) VALUES (:name, :value, :id)",
                    name=name,
                    value=value,
                    id=id,
                )
        for id, _, _ in kept.values():
            self._store.run("DELETE FROM trait WHERE binding = :id", id=id)
            self._store.run("UPDATE binding SET listed = 0 WHERE id = :id", id=id)
            # Once it was handed out it is kept, unlisted: if it comes back, its fence must go on growing.
            self._store.run("DELETE FROM binding WHERE id = :id AND resource IS NULL AND fence = 0", id=id)
        self._hold_what_is_held(blueprint)
        self.refresh_resources(blueprint)

    def refresh_resources(self, blueprint: int) -> None:
        """Open exactly those resources whose binding is in use and still what they were built on, and whose time is not
        over; copy the seats."""
        self._store.run(
            "UPDATE resource SET open = CASE WHEN binding IS NULL OR EXISTS (SELECT 1 FROM binding b"
            " WHERE b.id = resource.binding AND b.enabled = 1 AND b.in_service = 1 AND b.listed = 1 AND b.missing = 0"
            " AND b.attributes = resource.attributes AND b.shape = resource.shape) THEN 1 ELSE 0 END"
            " * CASE WHEN given_up = 1 OR until <= :now THEN 0 ELSE 1 END,"
            " seats = COALESCE((SELECT p.seats FROM blueprint p WHERE p.id = :blueprint), :unlimited)"
            " WHERE blueprint = :blueprint AND status <> 'destroyed'",
            blueprint=blueprint,
            unlimited=UNLIMITED,
            now=self._store.clock(),
        )

    def shared_slot_locks(self, blueprint: int) -> list[tuple[str, str, str]]:
        """Slot locks that this blueprint's bindings have in common with another's: key, binding, other blueprint."""
        rows = self._store.rows(
            "SELECT mine.slot_lock, mine.name, p.name FROM binding mine"
            " JOIN binding other ON other.slot_lock = mine.slot_lock AND other.blueprint <> mine.blueprint"
            " JOIN blueprint p ON p.id = other.blueprint"
            " WHERE mine.blueprint = :blueprint AND mine.listed = 1 AND other.listed = 1 LIMIT 10",
            blueprint=blueprint,
        )
        return [(key, binding, other) for key, binding, other in rows]

    def _save_shapes(self, blueprint: int, wanted: Sequence[Declared]) -> dict[str, int]:
        things: dict[str, int] = {}
        for declared in wanted:
            things[declared.shape] = things.get(declared.shape, 0) + 1
        if not wanted:
            things = {"{}": 0}
        self._store.run("UPDATE shape SET things = 0 WHERE blueprint = :blueprint", blueprint=blueprint)
        ids = {}
        for attributes, number in things.items():
            shape = {"blueprint": blueprint, "attributes": attributes, "things": number}
            row = self._store.row(
                "UPDATE shape SET things = :things WHERE blueprint = :blueprint AND attributes = :attributes RETURNING id",
                **shape,
            ) or self._store.row(
                "INSERT INTO shape (blueprint, attributes, things) VALUES (:blueprint, :attributes, :things) RETURNING id",
                **shape,
            )
            assert row is not None
            ids[attributes] = int(row[0])
        return ids

    def _save_binding(self, blueprint: int, shape: int, declared: Declared) -> int:
        row = self._store.row(
            "INSERT INTO binding (blueprint, shape, name, slot_lock, lease_locks, attributes, enabled, in_service, listed,"
            " resource, fence) VALUES (:blueprint, :shape, :name, :slot_lock, :lease_locks, :attributes, 1, :in_service, 1,"
            " NULL, (SELECT COALESCE(max(fence), 0) FROM binding WHERE slot_lock = :slot_lock))"
            " ON CONFLICT (blueprint, name) DO UPDATE SET shape = :shape, slot_lock = :slot_lock,"
            " lease_locks = :lease_locks, attributes = :attributes, in_service = :in_service, listed = 1 RETURNING id",
            blueprint=blueprint,
            shape=shape,
            name=declared.name,
            slot_lock=declared.slot_lock,
            lease_locks=declared.lease_locks,
            attributes=declared.attributes,
            in_service=int(declared.in_service),
        )
        assert row is not None
        return int(row[0])

    def _hold_what_is_held(self, blueprint: int) -> None:
        # A new binding may have the slot lock of one that a resource of another blueprint stands on.
        self._store.run(
            "UPDATE binding SET resource = (SELECT CAST(substr(l.holder, 10) AS BIGINT) FROM slot_lock l"
            " WHERE l.key = binding.slot_lock AND l.holder LIKE 'resource:%')"
            " WHERE blueprint = :blueprint AND resource IS NULL"
            " AND EXISTS (SELECT 1 FROM slot_lock l WHERE l.key = binding.slot_lock)",
            blueprint=blueprint,
        )


#: what the `seats` of a resource say when its blueprint sets no limit
UNLIMITED = 2**31 - 1


@reads("blueprint")
def _blueprint(row: tuple[Any, ...]) -> Blueprint:
    id, name, kind, type, source, seats, most, grace, pooled, hooks, enabled, live, *times = row
    cooldown, lifetime, ttl, per_lease, observe_every = times
    check_texts(name=name, kind=kind, type=type, hooks=hooks)
    return Blueprint(
        id,
        name,
        kind,
        type,
        source,
        seats,
        most,
        grace,
        bool(pooled),
        frozenset(hooks.split()),
        bool(enabled),
        live,
        cooldown,
        lifetime,
        ttl,
        texts(per_lease, "per_lease"),
        observe_every,
    )


@reads("blueprint")
def _settings(row: tuple[Any, ...]) -> dict[str, Any]:
    return pairs(row[1], "settings")


@reads("source")
def read_source(row: tuple[Any, ...]) -> dict[str, Any]:
    return pairs(row[1], "data")


@reads("shape")
def _shape(row: tuple[Any, ...]) -> Shape:
    return Shape(row[0], pairs(row[1], "attributes"), row[2])


@reads("binding")
def _binding(row: tuple[Any, ...]) -> Binding:
    id, name, blueprint, enabled, resource = row
    check_texts(name=name)
    return Binding(id, name, blueprint, bool(enabled), resource)


@reads("binding")
def _site(row: tuple[Any, ...]) -> Site:
    id, name, blueprint, shape, slot_lock, lease_locks, attributes, fence = row
    check_texts(name=name, slot_lock=slot_lock, lease_locks=lease_locks)
    return Site(id, name, blueprint, shape, slot_lock, lease_locks, pairs(attributes, "attributes"), fence)


#: everything that is offered, in pages, and what reads it
EVERY = (
    (f"SELECT {_BLUEPRINT} FROM blueprint WHERE id > :after ORDER BY id LIMIT :most", _blueprint),
    ("SELECT blueprint, data FROM settings WHERE blueprint > :after ORDER BY blueprint LIMIT :most", _settings),
    ("SELECT id, attributes, things FROM shape WHERE id > :after ORDER BY id LIMIT :most", _shape),
    (f"SELECT {_SITE} FROM binding b WHERE b.id > :after ORDER BY b.id LIMIT :most", _site),
)


def numbered(values: Sequence[int]) -> tuple[str, dict[str, int]]:
    """`values` as parameters of an IN list: the text to put between its brackets, and what it names."""
    parameters = {f"v{number}": value for number, value in enumerate(values)}
    return ", ".join(f":{name}" for name in parameters), parameters
