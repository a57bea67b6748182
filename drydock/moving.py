"""Moving house: a live installation goes from one store to another, and nothing is held twice on the way.

What must not be is that both stores give out the same thing. So a store that is left while something is held in it is
frozen first: nobody can write in it from then on, wherever its processes are in their work, and all of it is copied as
it stands. When that fails, nothing is kept at the target, and the source is thawed and as it was.

A lease of nobody's process follows as it is. One that is bound to a process (`drydock run`) does not end with that
on arrival, since the process is known in the old store alone. It follows if it has an end that its holder keeps: a
ttl, which cannot be renewed in a frozen store, or a moment. So the holder stops before the target lets another have
the thing. One without an end would be held for ever, or be given away while it is used: it is refused, or given an end.
"""

from typing import NamedTuple

from .doctor import promises
from .endings import is_over
from .engine import Engine
from .errors import ConfigError, DrydockError, StoreAway, StoreDamaged, StoreError, StoreFull, quoted
from .store import Place, copying
from .store.base import Store


class Moved(NamedTuple):
    copied: copying.Copied
    frozen: bool  #: the source is frozen now


class Planned(NamedTuple):
    """What `copy_store` would do now."""

    rows: dict[str, int]  #: for each table
    live: list[int]  #: leases that would go on
    unbound: list[int]  #: of these, those that last as long as a process and would last until their other end
    waiting: list[int]  #: requests that would be over
    over: list[int]  #: leases and requests that are over already, and would be ended first


def plan_copy(source: Store, target: Place, *, freeze: bool = False, until: float | None = None) -> Planned:
    """What `copy_store` with the same options would do, and that nothing known now is in its way. Nothing is changed.

    Raises as `copy_store` does.
    """
    _refuse_itself(source, target.address)
    if target.store is not None:
        copying.refuse_full(target.store)
    with source.read():
        _check(source)
        all_of = copying.standing(source)
        over = {id for id in (*all_of.held, *all_of.waiting) if _is_over(source, id)}
        found = all_of._replace(
            waiting=[id for id in all_of.waiting if id not in over],
            held=[id for id in all_of.held if id not in over],
            endless=[id for id in all_of.endless if id not in over],
        )
        if source.is_frozen():
            pass
        elif freeze:
            copying.refuse_to_freeze(source, found, until)
        else:
            copying.refuse_living(source, found)
        rows = {table: copying.count(source, table) for table in copying.TABLES}
        bound = {id for id, _ in source.leases.bound()}
    return Planned(rows, found.held, [id for id in found.held if id in bound], found.waiting, sorted(over))


def copy_store(
    source: Store,
    target: Store,
    *,
    freeze: bool = False,
    until: float | None = None,
    progress: copying.Progress | None = None,
) -> Moved:
    """Copy all of `source` to `target`, which must be empty.

    `freeze`: the source may be in use, and is frozen; leases that have no end but that of their process get the end
    `until`. Raises `Refused` when the target is not empty, when the source is in use and not to be frozen, or when
    something in it cannot be left; `StoreDamaged` when a promise is broken in the source, or would be in the target.
    """
    _refuse_itself(source, target.address)
    copying.refuse_full(target)
    with source.read():
        _check(source)
    freezes = freeze and not source.is_frozen()
    if not source.is_frozen():
        Engine(source).reap()
    if freezes:
        copying.freeze(source, target.address, until)
    checked = False

    def check(store: Store) -> None:
        nonlocal checked
        _check(store)
        checked = True

    try:
        copied = copying.copy(source, target, check=check, progress=progress or _silent)
    except BaseException as error:
        # Once it was to be kept, only some errors say that it was not. Two stores must never be open with the same leases.
        if freezes and source.moved_to() != target.address:
            pass  # somebody else has copied it since, or thawed it
        elif freezes and (not checked or isinstance(error, StoreAway | StoreFull)):
            _thaw(source, error)
        elif freezes and isinstance(error, StoreError):
            raise StoreError(f"{error}; {quoted(source.address)} stays frozen") from error
        raise
    if source.is_frozen() and not freezes:
        copying.tell_where(source, target.address)
    return Moved(copied, source.is_frozen())


def thaw(store: Store) -> bool:
    """Let a frozen store be written again. False if it was not frozen."""
    return copying.thaw(store)


def _refuse_itself(source: Store, target: str) -> None:
    if source.address == target:
        raise ConfigError(f"{quoted(source.address)} is both stores; give another one")


def _is_over(store: Store, lease: int) -> bool:
    """Whether a lease or request is over, though nobody has noted that."""
    span = store.leases.span(lease)
    if span is None:
        return True
    return is_over(store, span) or (span.process is not None and not store.is_alive(span.process))


def _silent(table: str, done: int, total: int) -> None:
    pass


def _thaw(store: Store, error: BaseException) -> None:
    try:
        copying.thaw(store)
    except DrydockError as other:
        raise StoreError(f"{error}; and {quoted(store.address)} stays frozen: {other}") from error


def _check(store: Store) -> None:
    broken = [finding.sentence for finding in promises(store) if finding.broken]
    if broken:
        raise StoreDamaged(
            f"{quoted(store.address)} does not keep {len(broken)} promises, such as: {broken[0]}; see: drydock doctor"
        )
