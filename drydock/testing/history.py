"""Record what processes did with leases, and check afterwards that nothing was granted twice or lost.

    python -m drydock.testing.history [--seats K] FILE...

An operation has a call and a return, on one clock that all processes of the machine share. As in Jepsen's Knossos
(https://github.com/jepsen-io/knossos) it took place somewhere between the two, did not take place, or may or may not
have, as when its process was killed; as in Porcupine (https://github.com/anishathalye/porcupine) each resource is
checked by itself. Their search through all orders is not needed: a fence says in which order grants were made, so a
history is checked by sorting it.

The rules:

* overlap: a resource never has more holders than seats. A holder surely holds from the return of its grant to the call
  of its release, or of the last thing that the store let it do, or as long as its ttl and its life surely last.
* fence: a grant that came after another of the same resource has a larger fence.
* unmatched: what is released, renewed or verified was granted; it is released once, and not used after that.
* lost: who surely still holds is never told that he does not; what was never given up is listed at the end.
* late: nobody renews, verifies or releases a lease when its ttl has surely passed.
* kept: what was given up is not listed at the end.
* stale: who guards writes with the fence never accepts one with a smaller fence than one that it accepted before.

It is sound for ttls on a clock that runs as the recorder's does: a machine that was suspended meanwhile proves nothing.
"""

import argparse
import heapq
import json
import math
import os
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

ACQUIRE, RELEASE, RENEW, VERIFY, WRITE = "acquire", "release", "renew", "verify", "write"
KILL = "kill"  #: the process is about to be killed, or to end: what it holds may end from now on


class Outcome(StrEnum):
    OK = "ok"  #: it took place
    FAIL = "fail"  #: it did not take place: nothing was free, the store was full
    LOST = "lost"  #: it was refused, since the lease is over; a write: since its fence is too old
    UNKNOWN = "unknown"  #: it may have taken place


class Operation(NamedTuple):
    process: str  #: one life of one process: never used again after its end
    kind: str
    resource: str | None  #: of an acquire: what was granted
    fence: int | None
    called_at: float
    returned_at: float | None  #: None: it never did
    outcome: str
    ttl: float | None = None  #: of an acquire or renewal; None: no end, or as before


class Violation(NamedTuple):
    rule: str  #: its name in the list above
    sentence: str


# ---- the file


class Recorder:
    """Appends to one file what one thread of one process does; whoever is killed loses nothing that it has recorded.

    A process may append to the file of one that has ended; only one may use it at a time. Each record is a line of
    JSON, written at once: `{"process": P}` before all others of P; `[number, kind, resource, fence, ttl, at]` for a
    call; `[number, outcome, resource, fence, at]` for its return; `{"killed": P, "at": at}`.
    """

    def __init__(self, path: str, process: str | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._number = clock, 0
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":  # the line at which the one before was killed
            self._write("\n")
        self._write(json.dumps({"process": process or f"{os.getpid()}.{time.monotonic_ns()}"}) + "\n")

    def call(
        self, kind: str, resource: str | None = None, fence: int | None = None, *, ttl: float | None = None
    ) -> int:
        """Record that an operation begins; the number is for `returned`."""
        self._number += 1
        rest = f"{_json(resource)},{_json(fence)},{_json(ttl)},{self._clock():.9f}"
        self._write(f"[{self._number},{_json(kind)},{rest}]\n")
        return self._number

    def returned(self, number: int, outcome: str, resource: str | None = None, fence: int | None = None) -> None:
        """Record how it ended; of an acquire also what was granted."""
        at = self._clock()
        self._write(f'[{number},"{outcome}",{_json(resource)},{_json(fence)},{at:.9f}]\n')

    def killed(self, process: str) -> None:
        """Record that `process` is about to be killed, or to end."""
        self._write(json.dumps({"killed": process, "at": self._clock()}) + "\n")

    def close(self) -> None:
        os.close(self._fd)

    def _write(self, line: str) -> None:
        data = line.encode()
        if os.write(self._fd, data) != len(data):
            raise OSError("the history could not be written: the disk is full")


def _json(value: object) -> str:
    return "null" if value is None else json.dumps(value)


def read(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Operation]:
    """The operations in these files, one file after the other, each when its return is read.

    A line that was torn when its writer died is passed over. Raises `ValueError` for one that is damaged otherwise,
    `OSError` for a file that cannot be read.
    """
    for path in paths:
        with open(path, "rb") as lines:  # noqa: PTH123 - a plain path is as good
            try:
                yield from _Lines().operations(lines)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}, {error}") from error


class _Lines:
    def __init__(self) -> None:
        self.process = ""
        self.open: dict[int, list[Any]] = {}

    def operations(self, lines: Iterable[bytes]) -> Iterator[Operation]:
        torn = 0
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except ValueError:
                torn = torn or number
                continue
            if torn and "process" not in record:
                raise ValueError(f"line {torn}: cannot be read")
            torn = 0
            try:
                yield from self._operation(record)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"line {number}: {error!r}") from error
        yield from self._unreturned()

    def _operation(self, record: Any) -> Iterator[Operation]:
        if isinstance(record, dict):
            if "process" in record:
                yield from self._unreturned()
                self.process = sys.intern(record["process"])
            else:
                yield Operation(record["killed"], KILL, None, None, record["at"], record["at"], Outcome.OK)
        elif len(record) == 6:
            self.open[record[0]] = record
        else:
            number, outcome, granted, granted_fence, at = record
            _, kind, resource, fence, ttl, called = self.open.pop(number)
            name = resource if granted is None else granted
            mark = fence if granted_fence is None else granted_fence
            yield Operation(self.process, kind, name, mark, called, at, Outcome(outcome), ttl)

    def _unreturned(self) -> Iterator[Operation]:
        for _, kind, resource, fence, ttl, called in self.open.values():
            yield Operation(self.process, kind, resource, fence, called, None, Outcome.UNKNOWN, ttl)
        self.open.clear()


# ---- the check


def check(
    operations: Iterable[Operation],
    *,
    seats: int | Mapping[str, int] = 1,
    final: Iterable[tuple[str, int]] | None = None,
) -> list[Violation]:
    """Every rule that the history breaks, in one sentence each; none: it is as it must be.

    The operations of one process come in its order, and are not kept. `seats`: how many may hold a resource at once,
    for all or by name. `final`: the resource and fence of each lease that the store lists after the last operation.
    """
    history = _History()
    for operation in operations:
        history.take(operation)
    return history.violations(seats, final)


class _Use(NamedTuple):
    """Something that was done with a lease that has a ttl, and may have taken place."""

    called_at: float
    returned_at: float  #: infinite: never
    renews: bool
    ok: bool
    ttl: float


class _Grant:
    """What is known of a grant, and of what was done with it."""

    __slots__ = (
        "called", "fence", "freed", "freed_ok", "lost", "process", "proof", "refused", "releases", "renewed", "returned",
        "ttl", "uses",
    )  # fmt: skip

    def __init__(self, process: str, fence: int, called: float, returned: float, ttl: float | None) -> None:
        self.process, self.fence, self.called, self.returned = process, fence, called, returned
        self.ttl = math.inf if ttl is None else ttl  # the shortest that it ever had
        self.renewed = called  # the last call of a renewal that took place
        self.freed = math.inf  # the first call of a release that may have taken place
        self.freed_ok = math.inf  # the first return of one that did
        self.releases = 0  # how many did
        self.proof = -math.inf  # the last call that the store let through
        self.lost = math.inf  # the first return that said that the lease is over
        self.refused = math.inf  # the first return of a write that was refused
        self.uses: list[_Use] | None = None if ttl is None else [_Use(called, returned, True, True, ttl)]

    def surely_until(self, dead: float) -> float:
        """Until when it was held without doubt, when its process may have died at `dead`."""
        return max(self.proof, min(self.freed, dead, self.renewed + self.ttl))

    def __str__(self) -> str:
        return f"{self.process} (fence {self.fence})"


class _Resource:
    def __init__(self) -> None:
        self.grants: dict[int, _Grant] = {}  # by fence
        self.twins: dict[tuple[int, str], _Grant] = {}  # whose fence is in `grants` already
        # Arrays, since these are many.
        self.write_calls, self.write_returns, self.write_fences = array("d"), array("d"), array("q")

    def all(self) -> list[_Grant]:
        return [*self.grants.values(), *self.twins.values()]

    def grant(self, fence: int, process: str) -> _Grant | None:
        return self.twins.get((fence, process)) or self.grants.get(fence)


class _History:
    def __init__(self) -> None:
        self.resources: dict[str, _Resource] = defaultdict(_Resource)
        self.died: dict[str, float] = {}
        self.early: list[Operation] = []  # what was done with a lease whose grant has not been read
        self.unknown_acquires: list[float] = []
        self.found: list[Violation] = []

    def add(self, rule: str, sentence: str) -> None:
        self.found.append(Violation(rule, sentence))

    # ---- taking it in

    def take(self, operation: Operation) -> None:
        process, kind, resource, fence, called, returned, outcome, _ = operation
        if kind == KILL or returned is None:
            self.died[process] = min(called, self.died.get(process, math.inf))
        if kind == KILL or outcome == Outcome.FAIL:
            return
        if kind == ACQUIRE and outcome != Outcome.OK:
            self.unknown_acquires.append(called)
        elif resource is None or fence is None:
            raise ValueError(f"{kind} of {process} at {called:.6f} names no resource and fence")
        elif kind == ACQUIRE:
            self._acquired(operation, resource, fence)
        elif kind == WRITE and outcome == Outcome.OK:
            known = self.resources[resource]
            known.write_calls.append(called)
            known.write_returns.append(math.inf if returned is None else returned)
            known.write_fences.append(fence)
        elif grant := self.resources[resource].grant(fence, process):
            _used(grant, operation)
        else:
            self.early.append(operation)

    def _acquired(self, operation: Operation, resource: str, fence: int) -> None:
        process, returned = operation.process, operation.returned_at
        grant = _Grant(process, fence, operation.called_at, math.inf if returned is None else returned, operation.ttl)
        known = self.resources[resource]
        first = known.grants.setdefault(fence, grant)
        if first is not grant:
            self.add("fence", f"{resource} was granted twice with fence {fence}: to {first.process} and to {process}")
            known.twins[fence, process] = grant

    # ---- judging it

    def violations(self, seats: int | Mapping[str, int], final: Iterable[tuple[str, int]] | None) -> list[Violation]:
        self._match_the_early()
        for name in sorted(self.resources):
            known = self.resources[name]
            places = seats if isinstance(seats, int) else seats[name]
            self._check_uses(name, known, places)
            self._check_holders(name, known, places)
            self._check_order(name, known)
            self._check_writes(name, known)
        self._check_unmatched(None if final is None else set(final))
        return self.found

    def _match_the_early(self) -> None:
        left = []
        for operation in self.early:
            assert operation.resource is not None
            assert operation.fence is not None
            grant = self.resources[operation.resource].grant(operation.fence, operation.process)
            if grant:
                _used(grant, operation)
            elif operation.outcome == Outcome.OK:
                left.append(operation)
        self.early = left

    def _until(self, grant: _Grant) -> float:
        return grant.surely_until(self.died.get(grant.process, math.inf))

    def _check_uses(self, name: str, known: _Resource, seats: int) -> None:
        for grant in known.all():
            if grant.releases > 1:
                self.add("unmatched", f"{name} was released {grant.releases} times by {grant}")
            elif grant.proof > grant.freed_ok:
                self.add("unmatched", f"{name} was still used by {grant} at {grant.proof:.6f}, after its release")
            until = self._until(grant)
            if grant.lost < until:
                self.add("lost", f"{name} was taken from {grant} before {grant.lost:.6f}; it held until {_at(until)}")
            # With several seats the writes of the newest holder turn those of the others away.
            if seats == 1 and grant.refused < until:
                self.add(
                    "lost", f"{name} refused a write of {grant} at {grant.refused:.6f}; it held until {_at(until)}"
                )
            ends = -math.inf
            for use in sorted(grant.uses or ()):
                if use.ok and use.called_at > ends > -math.inf:
                    self.add(
                        "late", f"{name} was still used by {grant} at {use.called_at:.6f}; its ttl ended by {ends:.6f}"
                    )
                if use.renews:
                    ends = max(ends, use.returned_at + use.ttl)

    def _check_holders(self, name: str, known: _Resource, seats: int) -> None:
        """That they were never too many; and where they come one after the other, that their fences grow."""
        holders: list[tuple[float, int, _Grant]] = []  # a heap: whoever surely holds now, by the end of it
        newest: _Grant | None = None
        for number, grant in enumerate(sorted(known.all(), key=lambda grant: grant.returned)):
            until = self._until(grant)
            if until <= grant.returned:
                continue
            while holders and holders[0][0] <= grant.returned:
                heapq.heappop(holders)
            if len(holders) >= seats:
                others = ", ".join(str(holder) for _, _, holder in sorted(holders)[:8])
                most = "one seat" if seats == 1 else f"{seats} seats"
                self.add(
                    "overlap",
                    f"{name} has {most} and was granted to {grant} at {grant.returned:.6f} while {others} held it",
                )
            elif seats == 1 and newest and newest.fence >= grant.fence:
                self.add("fence", f"{name} was granted to {grant} at {grant.returned:.6f}, after {newest} had held it")
            heapq.heappush(holders, (until, number, grant))
            if newest is None or grant.fence > newest.fence:
                newest = grant

    def _check_order(self, name: str, known: _Resource) -> None:
        """That a grant that began when another had ended has the larger fence."""
        grants = known.all()
        ended = sorted(grants, key=lambda grant: grant.returned)
        newest: _Grant | None = None
        position = 0
        for grant in sorted(grants, key=lambda grant: grant.called):
            while position < len(ended) and ended[position].returned < grant.called:
                if newest is None or ended[position].fence > newest.fence:
                    newest = ended[position]
                position += 1
            if newest and newest.fence >= grant.fence:
                self.add(
                    "fence", f"{name} was asked for by {grant} at {grant.called:.6f}, after {newest} had been granted"
                )

    def _check_writes(self, name: str, known: _Resource) -> None:
        calls, returns, fences = known.write_calls, known.write_returns, known.write_fences
        by_return = sorted(range(len(calls)), key=returns.__getitem__)
        newest, position = -1, 0
        for write in sorted(range(len(calls)), key=calls.__getitem__):
            while position < len(by_return) and returns[by_return[position]] < calls[write]:
                newest = max(newest, fences[by_return[position]])
                position += 1
            if newest > fences[write]:
                self.add("stale", f"{name} accepted fence {fences[write]} at {calls[write]:.6f}, after fence {newest}")

    def _check_unmatched(self, final: set[tuple[str, int]] | None) -> None:
        """Whatever was done with a lease that nobody is known to have been granted, and what is listed at the end."""
        seen: dict[tuple[str, int], tuple[float, str]] = {}
        for use in self.early:
            assert use.resource is not None
            assert use.fence is not None
            back = math.inf if use.returned_at is None else use.returned_at
            what = f"{use.resource} with fence {use.fence} was given to nobody and used by {use.process} ({use.kind})"
            seen[use.resource, use.fence] = min((back, what), seen.get((use.resource, use.fence), (math.inf, what)))
        if final is not None:
            self._check_listed(final)
            for name, fence in final:
                if self.resources[name].grants.get(fence) is None:
                    seen.setdefault(
                        (name, fence), (math.inf, f"{name} with fence {fence} is listed and was given to nobody")
                    )
        # Whoever never heard that he was granted something may have been: each explains one of them.
        unknown, explained = sorted(self.unknown_acquires), 0
        for back, what in sorted(seen.values()):
            if explained < len(unknown) and unknown[explained] < back:
                explained += 1
            else:
                self.add("unmatched", what)

    def _check_listed(self, final: set[tuple[str, int]]) -> None:
        for name, known in sorted(self.resources.items()):
            for grant in known.all():
                listed = (name, grant.fence) in final
                if listed and grant.releases:
                    self.add("kept", f"{name} is listed for {grant}, which released it")
                elif not listed and self._until(grant) == math.inf and grant.lost == math.inf:
                    self.add("lost", f"{name} was granted to {grant}, never given up, and is not listed")


def _used(grant: _Grant, operation: Operation) -> None:
    _, kind, _, _, called, returned, outcome, ttl = operation
    back = math.inf if returned is None else returned
    if kind == WRITE:
        if outcome == Outcome.LOST:
            grant.refused = min(grant.refused, back)
        return
    if outcome == Outcome.LOST:
        grant.lost = min(grant.lost, back)
        return
    ok, renews = outcome == Outcome.OK, kind == RENEW
    if renews and ttl is not None:
        grant.ttl = min(grant.ttl, ttl)
    if grant.uses is not None:
        grant.uses.append(_Use(called, back, renews, ok, _longest(grant.uses) if ttl is None else ttl))
    if kind == RELEASE:
        grant.freed = min(grant.freed, called)
    if ok:
        grant.proof = max(grant.proof, called)
        if renews:
            grant.renewed = max(grant.renewed, called)
        if kind == RELEASE:
            grant.releases += 1
            grant.freed_ok = min(grant.freed_ok, back)


def _longest(uses: Iterable[_Use]) -> float:
    return max(use.ttl for use in uses)


def _at(moment: float) -> str:
    return "its end" if moment == math.inf else f"{moment:.6f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: the history is as it must be; 1: it is not; 2: it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m drydock.testing.history", description="Check recorded histories.")
    parser.add_argument("--seats", type=int, default=1, help="how many may hold one resource at once (default 1)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="what a Recorder wrote")
    given = parser.parse_args(arguments)
    history, read_so_far = _History(), 0
    try:
        for operation in read(given.files):
            history.take(operation)
            read_so_far += 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = history.violations(given.seats, None)
    for violation in found:
        sys.stdout.write(f"{violation.rule}: {violation.sentence}\n")
    sys.stdout.write(f"{read_so_far} operations, {len(found)} violations\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
