"""What came of it: the history checked, the store examined, and whether anything is left of anybody."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tormentor import Phase, SmallDisk, Stuck, Tormentor, Torments, be_on
from worker import is_served

from drydock.doctor import examine
from drydock.engine import Engine
from drydock.model import LeaseStatus
from drydock.store import open_store
from drydock.testing import history
from drydock.testing.history import ACQUIRE, RELEASE, RENEW, VERIFY, WRITE, Operation, Outcome, Violation

Granted = set[tuple[str, int]]  #: resource and fence
SHOWN = 5
#: looks that anybody needs to finish what the dead have left
MOST_TENDING = 100


class Verdict(NamedTuple):
    """What is told of one phase."""

    torments: Torments
    grants: int
    double_grants: int
    lost_grants: int
    other_violations: int
    leaked: int  #: leases and slot locks that are left though everybody is dead
    integrity: bool  #: what doctor says of the store, and SQLite of its file
    refused_late: int  #: who was told that the lease is over
    refused_writes: int  #: writes with a fence that was too old
    failed: int  #: operations that failed for want of room, or of a server
    failed_releases: int
    wrong: list[str]  #: sentences


def torment(tormentor: Tormentor) -> Verdict:
    """Let it run, and see what is left."""
    wrong: list[str] = []
    listed: Granted | None = None
    with tormentor:
        try:
            tormentor.run()
            if not tormentor.crashes:
                listed = _listed(tormentor.phase)
        except Stuck as stuck:
            wrong.append(str(stuck))
        torments = tormentor.torments
        wrong += [f"a worker failed: {crash.strip().splitlines()[-1]}" for crash in tormentor.crashes]
    leaks = _left(tormentor.phase)
    damage = _damage(tormentor.phase.store)
    seen = Seen()
    paths = sorted((tormentor.phase.folder / "history").iterdir())
    violations = history.check(seen.all(history.read(paths)), final=listed)
    rules = Counter(violation.rule for violation in violations)
    if listed is not None:
        wrong += [f"{name} with fence {fence} is leased and nobody knows" for name, fence in sorted(listed - seen.held)]
    failed_releases = seen.count(RELEASE, Outcome.FAIL) + seen.returned_unknown
    if failed_releases and isinstance(tormentor.phase.fill, SmallDisk):  # SQLite's own limit leaves no room for them
        wrong.append(f"{failed_releases} releases failed on a full disk")
    return Verdict(
        torments,
        grants=seen.count(ACQUIRE, Outcome.OK),
        double_grants=rules["overlap"],
        lost_grants=rules["lost"],
        other_violations=rules.total() - rules["overlap"] - rules["lost"],
        leaked=len(leaks),
        integrity=not damage,
        refused_late=sum(seen.count(kind, Outcome.LOST) for kind in (RENEW, VERIFY, RELEASE)),
        refused_writes=seen.count(WRITE, Outcome.LOST),
        failed=tormentor.board.refusals(),
        failed_releases=failed_releases,
        wrong=[*wrong, *_told(violations), *_few(leaks), *_few(damage)],
    )


class Seen:
    """What passes on its way to the checker."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.returned_unknown = 0  #: releases that ended with an error and may have taken place
        self.held: Granted = set()  #: what was granted and not known to be over

    def all(self, operations: Iterator[Operation]) -> Iterator[Operation]:
        for operation in operations:
            _, kind, resource, fence, _, returned, outcome, _ = operation
            self.counts[kind, outcome] += 1
            self.returned_unknown += kind == RELEASE and outcome == Outcome.UNKNOWN and returned is not None
            if resource is not None and fence is not None and kind in (ACQUIRE, RELEASE):
                if kind == ACQUIRE:
                    self.held.add((resource, fence))
                elif outcome != Outcome.FAIL:
                    self.held.discard((resource, fence))
            yield operation

    def count(self, kind: str, outcome: str) -> int:
        return self.counts[kind, outcome]


def _listed(phase: Phase) -> Granted:
    _tend(phase)
    store = open_store(phase.store)
    try:
        leases = [lease for lease in store.leases.live() if lease.status is LeaseStatus.ACTIVE]
        return {(lease.resource.name, lease.fence) for lease in leases if lease.resource and lease.fence is not None}
    finally:
        store.close()


def _left(phase: Phase) -> list[str]:
    """What somebody left behind though all are dead, and one who came later has seen to it."""
    _tend(phase)
    store = open_store(phase.store)
    try:
        leases = [f"lease {lease.id} is left: {lease.status}" for lease in store.leases.live()]
        locks = [lock for lock in store.slot_locks.all() if lock.holder.startswith("lease:")]
        return leases + [f"slot lock {lock.key} is left with {lock.holder}" for lock in locks]
    finally:
        store.close()


def _damage(path: str) -> list[str]:
    store = open_store(path, read_only=True)
    try:
        found = [finding.sentence for finding in examine(store) if finding.broken]
        checked = [("ok",)] if is_served(path) else store.rows("PRAGMA integrity_check")
        return found if checked == [("ok",)] else [*found, f"integrity_check says: {checked[0][0]}"]
    finally:
        store.close()


def _tend(phase: Phase) -> None:
    """See to what is over, on each machine: who died there is known there."""
    for number in range(len(phase.machines) or 1):
        be_on(phase.machines, number)
        store = open_store(phase.store)
        try:
            engine = Engine(store)
            for _ in range(MOST_TENDING):
                if not engine.tend():
                    break
            else:
                raise Stuck("there is always something left to tend")
        finally:
            store.close()


def _told(violations: list[Violation]) -> list[str]:
    """Some of each rule."""
    rules = dict.fromkeys(violation.rule for violation in violations)
    return [line for rule in rules for line in _few([f"{rule}: {v.sentence}" for v in violations if v.rule == rule])]


def _few(sentences: list[str]) -> list[str]:
    rest = len(sentences) - SHOWN
    return sentences[:SHOWN] + ([f"... and {rest} more like these"] if rest > 0 else [])
