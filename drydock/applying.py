"""Make the store offer what a pool file says.

The kinds are asked outside any transaction; then everything is written in one, and what changed is told. If something
else that is offered changed in between, it is done over. `plan` writes it all the same and then takes it back, so
that it shows what would happen and cannot be wrong about it.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from .attributes import canonical, check, check_name
from .blueprint import Binding, Blueprint, Builder, Pool
from .config import MOST_RESOURCES, BlueprintConfig, PoolFile
from .discovery import KindClass, checked_settings, load_kind, make
from .errors import BlueprintError, ConfigError, Conflict, listed, quoted
from .model import HOOKS
from .model import Blueprint as BlueprintRow
from .shapes import shape_names, split
from .slots import checked_locks, dump
from .steps import Steps
from .store.base import Store
from .store.offers import Declared

MOST_TRIES = 10


class Change(NamedTuple):
    """One thing that applying a pool file changed, or would change."""

    kind: str  #: "blueprint", "binding" or "source"
    name: str
    blueprint: str | None  #: for a binding: whose
    change: str  #: "added", "changed", "removed", "drained" or "disabled"
    leases: int = 0  #: live leases that stand on it and go on


class _Prepared(NamedTuple):
    row: BlueprintRow
    settings: Mapping[str, Any]
    declared: tuple[Declared, ...]
    shares: bool


class _OverError(Exception):
    """Ends the transaction of a plan, or of a try that came too late."""


def apply_pool(store: Store, steps: Steps, pool: PoolFile, *, prune: bool, plan: bool) -> list[Change]:
    """Apply `pool` and return what changed. With `plan`, only say what would.

    What the file no longer has stays as it is, unless `prune`: then it takes no new leases. A binding that its
    blueprint no longer has is drained: live leases go on, and it is forgotten with the last.
    """
    changes: list[Change] = []
    for _ in range(MOST_TRIES):
        config = store.offers.config()
        sources = _merge(store.offers.sources(), pool.sources, prune=prune)
        prepared = [_prepare(steps, blueprint, sources) for blueprint in pool.blueprints]
        _check_sources(pool, prepared)
        prepared += _affected(store, steps, pool, sources)
        try:
            with store.write(asks=True):
                if store.offers.config() != config:
                    raise _OverError
                changes = _write(store, pool, prepared, sources, prune=prune)
                if plan:
                    raise _OverError
        except _OverError:
            if not plan:
                continue
        return changes
    raise Conflict("what is offered went on changing while the pool file was applied; try again")


# ---- asking the kinds


def _prepare(steps: Steps, config: BlueprintConfig, sources: Mapping[str, Any]) -> _Prepared:
    where = f"blueprint {quoted(config.name)}"
    kind = load_kind(config.kind, steps.environment)
    if kind.type is not None and config.type not in (None, kind.type):
        raise ConfigError(f"{where}: kind {quoted(config.kind)} makes {quoted(kind.type)}, not {quoted(config.type)}")
    type = kind.type or config.type
    if type is None:
        raise ConfigError(f'{where}: missing "type": kind {quoted(config.kind)} does not say what it makes')
    settings = checked_settings(kind, config.settings, where)
    source = sources.get(kind.source_table, {}) if kind.source_table else None
    row = BlueprintRow(
        id=0,
        name=config.name,
        kind=config.kind,
        type=type,
        source=kind.source_table,
        seats=config.seats,
        limit=config.limit,
        grace=kind.grace if config.grace is None else config.grace,
        pooled=issubclass(kind, Pool),
        hooks=frozenset(hook for hook in HOOKS if getattr(kind, hook) is not getattr(Blueprint, hook)),
        enabled=True,
        live=0,
        cooldown=kind.cooldown if config.cooldown is None else config.cooldown,
        lifetime=kind.lifetime if config.lifetime is None else config.lifetime,
        ttl=kind.ttl if config.ttl is None else config.ttl,
        per_lease=tuple(kind.per_lease) if issubclass(kind, Builder) else (),
        observe_every=_observe_every(kind, config, where),
    )
    blueprint = make(kind, config.name, settings, source)
    if source is not None:
        steps.ask(config.name, "check_source", lambda: kind.check_source(source))
    steps.ask(config.name, "check", blueprint.check)
    declared = (
        steps.ask(config.name, "bindings", lambda: _declare(config.name, blueprint.bindings()))
        if isinstance(blueprint, Pool)
        else ()
    )
    return _Prepared(row, settings, declared, kind.shares_bindings)


def _observe_every(kind: KindClass, config: BlueprintConfig, where: str) -> float | None:
    """Seconds between two looks at the outside truth, if the kind looks there."""
    looks = kind.missing is not Pool.missing if issubclass(kind, Pool) else kind.observe is not Builder.observe
    if not looks and config.observe_every is not None:
        raise ConfigError(
            f'{where}: "observe_every": kind {quoted(config.kind)} does not look whether things are there'
        )
    every = kind.observe_every if config.observe_every is None else config.observe_every
    return every if looks else None


def _declare(blueprint: str, bindings: Iterable[object]) -> tuple[Declared, ...]:
    checked: list[Binding] = []
    seen: dict[str, str] = {}
    for given in islice(bindings, MOST_RESOURCES + 1):
        if len(checked) == MOST_RESOURCES:
            raise ConfigError(f"more than {MOST_RESOURCES} bindings")
        binding = _checked(blueprint, given)
        other = seen.setdefault(binding.name.lower(), binding.name)
        if len(seen) == len(checked):
            how = "is listed twice" if other == binding.name else f"and {quoted(other)} differ only by case"
            raise ConfigError(f"{quoted(binding.name)} {how}")
        checked.append(binding)
    names = shape_names(binding.attributes for binding in checked)
    return tuple(_declared(binding, names) for binding in checked)


def _checked(blueprint: str, binding: object) -> Binding:
    """A binding of our own with the values of the author's, each asked for once and then checked."""
    if not isinstance(binding, Binding):
        raise BlueprintError(blueprint, "bindings", f"must give Binding, got {type(binding).__name__}")
    name = check_name(binding.name, "binding")
    try:
        [slot_lock] = checked_locks([binding.slot_lock])
        lease_locks = checked_locks(binding.lease_locks)
    except ConfigError as error:  # locks are the author's, everything else may be what the pool file says
        raise BlueprintError(blueprint, "bindings", str(error)) from None
    enabled = binding.enabled
    if not isinstance(enabled, bool):
        raise BlueprintError(blueprint, "bindings", f"enabled must be True or False, not {quoted(enabled)}")
    return Binding(name, slot_lock, check(binding.attributes, f"{quoted(name)}: attributes"), lease_locks, enabled)


def _declared(binding: Binding, names: frozenset[str]) -> Declared:
    shape, traits = split(binding.attributes, names)
    return Declared(
        binding.name,
        binding.slot_lock.key,
        dump(binding.lease_locks),
        canonical(binding.attributes),
        binding.enabled,
        canonical(shape),
        {name: canonical(value) for name, value in traits.items()},
    )


def _merge(kept: Mapping[str, Any], given: Mapping[str, Any], *, prune: bool) -> dict[str, Any]:
    """The shared tables when those of the file are laid over those kept: entry by entry, two levels down."""
    merged = dict(kept)
    for name, table in given.items():
        base = {} if prune else kept.get(name, {})
        merged[name] = {
            group: {**base.get(group, {}), **entries} if isinstance(entries, dict) else entries
            for group, entries in {**base, **table}.items()
        }
    return merged


def _check_sources(pool: PoolFile, prepared: list[_Prepared]) -> None:
    known = {p.row.source for p in prepared}
    for name in pool.sources:
        if name not in known:
            raise ConfigError(
                f"unknown table {quoted(name)}: no blueprint of this file draws on it; known tables: {listed(filter(None, known))}"
            )


def _affected(store: Store, steps: Steps, pool: PoolFile, sources: Mapping[str, Any]) -> list[_Prepared]:
    """Blueprints of other files that draw on a table that this file changes."""
    named = {blueprint.name for blueprint in pool.blueprints}
    others = [b for b in store.offers.blueprints() if b.source in pool.sources and b.name not in named]
    rows = [b for b in others if store.offers.is_listed(b.name)]
    return [
        _prepare(
            steps,
            BlueprintConfig(
                b.name,
                b.kind,
                b.type,
                b.seats,
                b.limit,
                b.grace,
                b.cooldown,
                b.lifetime,
                b.ttl,
                b.observe_every,
                store.offers.settings(b.id),
            ),
            sources,
        )
        for b in rows
    ]


# ---- writing it down


def _write(
    store: Store, pool: PoolFile, prepared: list[_Prepared], sources: Mapping[str, Any], *, prune: bool
) -> list[Change]:
    changes: list[Change] = []
    before = store.offers.sources()
    for name in pool.sources:
        if canonical(before.get(name, {})) != canonical(sources[name]):
            store.offers.save_source(name, sources[name])
            changes.append(Change("source", name, None, "changed" if name in before else "added"))
    for blueprint in prepared:
        changes += _write_blueprint(store, blueprint)
    if prune:
        kept = {blueprint.name for blueprint in pool.blueprints}
        for row in store.offers.blueprints():
            if row.name not in kept and row.enabled:
                store.offers.prune_blueprint(row.name)
                changes.append(Change("blueprint", row.name, None, "disabled", store.resources.leases_of(row.id)))
    if changes:
        store.offers.changed()
        _record(store, changes)
    return changes


def _write_blueprint(store: Store, prepared: _Prepared) -> list[Change]:
    row, old = prepared.row, store.offers.blueprint(prepared.row.name)
    changes: list[Change] = []
    if old is not None and old.live and (old.kind, old.type) != (row.kind, row.type):
        raise Conflict(
            f"blueprint {quoted(row.name)} has {old.live} live resources of kind {quoted(old.kind)};"
            f" release them before it becomes {quoted(row.kind)}: drydock disable blueprint:{row.name}, then drydock reclaim"
        )
    if old is None or not store.offers.is_listed(row.name) or not _same(store, old, prepared):
        changes.append(Change("blueprint", row.name, None, "added" if old is None else "changed"))
        id = store.offers.save_blueprint(row, prepared.settings)
    else:
        id = old.id
    kept = store.offers.declared(id)
    changes += _compare(store, row.name, kept, prepared.declared)
    if changes:
        store.offers.declare(id, prepared.declared)
    if not prepared.shares:
        for _, binding, other in store.offers.shared_slot_locks(id):
            raise ConfigError(
                f"{quoted(binding)} is in the pools {quoted(other)} and {quoted(row.name)}; list it in one of them"
            )
    return changes


def _same(store: Store, old: BlueprintRow, new: _Prepared) -> bool:
    return old._replace(id=0, enabled=True, live=0) == new.row and canonical(
        store.offers.settings(old.id)
    ) == canonical(new.settings)


def _compare(
    store: Store, blueprint: str, kept: Mapping[str, tuple[int, Declared, bool]], wanted: tuple[Declared, ...]
) -> list[Change]:
    changes: list[Change] = []
    for declared in wanted:
        _, old, was_listed = kept.get(declared.name, (0, None, False))
        if old is None or not was_listed:
            changes.append(Change("binding", declared.name, blueprint, "added"))
        elif old != declared:
            changes.append(
                Change(
                    "binding", declared.name, blueprint, "changed", store.resources.leases_at(kept[declared.name][0])
                )
            )
    gone = kept.keys() - {declared.name for declared in wanted}
    for name in sorted(gone):
        id, _, was_listed = kept[name]
        if was_listed:
            leases = store.resources.leases_at(id)
            changes.append(Change("binding", name, blueprint, "drained" if leases else "removed", leases))
    return changes


def _record(store: Store, changes: list[Change]) -> None:
    """One event for all that changed in one way."""
    groups: dict[tuple[str, str, str | None], list[str]] = {}
    for change in changes:
        about = change.name if change.kind == "blueprint" else change.blueprint
        groups.setdefault((change.kind, change.change, about), []).append(change.name)
    for (kind, verb, about), names in groups.items():
        store.events.add_names(f"{kind}.{verb}", about, names)
