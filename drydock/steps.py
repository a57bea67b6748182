"""Move on what is in transition: run the blueprint's hook that is due, then record what came of it.

A hook runs outside any transaction, in a process that has claimed the object; the claim names the process, and counts
only while the process lives, so a hook never runs twice at once and nothing waits for the dead. Since a crash can lie
between a hook's effect and its record, the next process simply runs it again. A process that no server has heard of for
too long is taken for dead; if it was at a hook all the same, what that came to is not recorded when somebody else has
taken it up by then.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .allocator import grant, lease_locks
from .blueprint import Builder, LeaseInfo, Pool, ResourceInfo, Support
from .discovery import KindClass, describe, load_kind, make
from .endings import (
    check_held,
    end_lease,
    finish_destroying,
    release_broken,
    release_lease,
    release_resource,
    start_destroying,
    vacate,
)
from .errors import BlueprintError, ConfigError, Conflict, Gone, NotFound, Refused, Terminated, Yield, printable, quoted
from .hooks import Call, Came, HookRunner
from .interfaces import Interface, check_interface
from .lifecycle import LEASE_MOVING, RESOURCE_MOVING
from .masking import masked
from .model import Blueprint, Lease, LeaseStatus, Resource, ResourceStatus
from .store.base import Store

if TYPE_CHECKING:
    from socket import socket

#: how long a hook that failed to tear something down is left alone before it is tried again: twice as long each time
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 600.0


class Outcome(NamedTuple):
    """What a step came to. `error`: the hook failed; `again_after`: it is to be called again, in so many seconds; `gone`: it
    failed since the thing is not there, or not fit."""

    moved: bool
    error: BlueprintError | None = None
    again_after: float | None = None
    gone: str | None = None


class _TakenUpError(Exception):
    """This process was taken for dead while it was at a hook, which runs somewhere else now."""


_NOT_OURS = Outcome(moved=False)
_DONE = Outcome(moved=True)


class Steps:
    """Runs the hooks of one store's blueprints, for one connection."""

    def __init__(self, store: Store, environment: Mapping[str, str], hooks: HookRunner) -> None:
        self.store = store
        self.environment = environment
        self.hooks = hooks
        #: what hooks have printed and nobody has recorded yet
        self._printed: list[dict[str, Any]] = []
        self._made: dict[str, tuple[int, Pool | Builder]] = {}

    # ---- the author's code

    def blueprint(self, row: Blueprint) -> Pool | Builder:
        """The author's object for a blueprint, kept until something offered changes."""
        config = self.store.offers.config()
        kept = self._made.get(row.name)
        if kept is None or kept[0] != config:
            source = self.store.offers.sources().get(row.source) if row.source else None
            kept = (config, make(self._kind(row), row.name, self.store.offers.settings(row.id), source))
            self._made[row.name] = kept
        return kept[1]

    def _kind(self, row: Blueprint) -> KindClass:
        try:
            return load_kind(row.kind, self.environment)
        except ConfigError as error:  # it was there when the pool file was applied
            raise BlueprintError(row.name, "import", str(error)) from error

    def call(self, blueprint: str, step: str, hook: Callable[[], object]) -> object:
        """Run the author's code; whatever it raises but `Yield`, `Gone`, ^C and the end is a `BlueprintError` that names it."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for our answers alone
                return hook()
        except (Yield, Gone, KeyboardInterrupt, Terminated, BlueprintError):
            raise
        except BaseException as error:
            raise BlueprintError(blueprint, step, describe(error)) from error

    def ask(self, blueprint: str, step: str, question: Callable[[], object]) -> Any:
        """Ask the author's code about somebody's input: what it refuses is that somebody's mistake, told as it stands."""
        try:
            return self.call(blueprint, step, question)
        except BlueprintError as error:
            if isinstance(error.__cause__, ConfigError | Refused):
                raise type(error.__cause__)(f"blueprint {quoted(blueprint)}: {masked(str(error.__cause__))}") from error
            raise

    def resource_info(self, resource: Resource) -> ResourceInfo:
        """What the author's code is told of a resource, and of what it stands on."""
        under = self.store.leases.under(resource.id)
        lease = None if under is None else self.store.leases.get(under)
        on = lease.resource if lease else None
        support = on and Support(on.name, on.type, on.attributes, self._interface_if_any(on))
        return ResourceInfo(resource.id, resource.name, resource.type, resource.attributes, support)

    def _interface_if_any(self, resource: Resource) -> Interface | None:
        try:
            return self.interface(resource)
        except ConfigError:
            return None

    def interface(self, resource: Resource) -> Interface:
        """Where commands for a resource run. Raises `ConfigError` when its kind knows no way."""
        row = self._row(resource)
        about = self.resource_info(resource)
        blueprint = self.blueprint(row)  # what the store raises is not the author's doing
        found = self.ask(row.name, "interface", lambda: blueprint.interface(about))
        self.call(row.name, "interface", lambda: check_interface(found))
        return cast(Interface, found)

    def sockets(self, resource: Resource) -> "list[socket]":
        """Open sockets for a command that runs under a lease on this resource. Raises `Gone` when it is not fit any more."""
        if "sockets" not in resource.hooks:
            return []
        row = self._row(resource)
        about = self.resource_info(resource)
        blueprint = self.blueprint(row)
        found = self.call(row.name, "sockets", lambda: list(blueprint.sockets(about)))
        assert isinstance(found, list)
        from socket import socket  # costs a command a tenth of its start, and few come here

        for one in found:
            if not isinstance(one, socket):
                raise BlueprintError(row.name, "sockets", f"must give open sockets, got {printable(one)}")
        return found

    # ---- resources

    def step_resource(self, id: int) -> Outcome:
        """Run the hook that resource `id` waits for, if nobody else does. What the hook raises is in the outcome."""
        found = self.store.resources.get(id)
        if found is None or found.status not in RESOURCE_MOVING:
            return _NOT_OURS
        # Its leases go first, and the last of them comes back here: a claim now would only shut that one out.
        if found.used or not self._claim("resource", id):
            return _NOT_OURS
        resource = self.store.resources.get(id)  # as it is now that it is ours
        assert resource is not None
        try:
            return self._activate(resource) if resource.status is ResourceStatus.PENDING else self._destroy(resource)
        except _TakenUpError:
            return _NOT_OURS

    def _activate(self, resource: Resource) -> Outcome:
        outcome = self._run(resource, "activate")
        if outcome.again_after is not None:
            return self._put_down("resource", resource, outcome)
        try:
            with self._record("resource", resource.id):
                if outcome.error:
                    self.store.move("resource", resource.id, ResourceStatus.PENDING, ResourceStatus.BROKEN)
                    self._tell("resource.broken", resource, error=str(outcome.error))
                else:
                    self._become_active(resource)
        except Conflict:  # released while it was being built: what was built is torn down now
            pass
        else:
            if not outcome.error:
                return _DONE
        torn_down = self.step_resource(resource.id)
        return outcome if outcome.error else torn_down

    def _become_active(self, resource: Resource) -> None:
        now = self.store.clock()
        self.store.move(
            "resource",
            resource.id,
            ResourceStatus.PENDING,
            ResourceStatus.ACTIVE,
            worker=None,
            idle_since=now,
            failures=0,
        )
        self.store.resources.start(resource.id)
        self._tell("resource.activated", resource)
        self.store.freed(resource.type, resource.id)  # it may have more seats than one
        # Whoever had it built is served first, in the same transaction: nobody can take it in between.
        room = self.store.resources.room(resource.id)
        blueprint = self.store.offers.blueprint(resource.blueprint)
        if room is None or blueprint is None or resource.built_for is None:
            return
        with contextlib.suppress(Conflict), self.store.attempt():
            # The requester goes on with it: our own claim would shut him out when we only passed by.
            requester = self.store.leases.process_of(resource.built_for)
            grant(self.store, resource.built_for, room, blueprint, lease_locks(room), requester)
            self.store.confirm()  # he may have given up meanwhile; that is to be known while it can be undone alone
            self.store.wake(requester, [resource.built_for])

    def _destroy(self, resource: Resource) -> Outcome:
        outcome = self._run(resource, "destroy") if "destroy" in resource.hooks else _DONE
        if outcome.error:
            with self._record("resource", resource.id):
                failures = self.store.resources.count_failure(resource.id)
                outcome = outcome._replace(again_after=_retry_after(failures))
                self._tell("resource.destroy-failed", resource, error=str(outcome.error), failures=failures,
                           again_after=outcome.again_after)  # fmt: skip
                # Somebody may wait for its place, and should rather look for another one.
                self.store.freed(resource.type)
                self.store.put_down("resource", resource.id, outcome.again_after or 0.0)
            return outcome
        if outcome.again_after is not None:
            return self._put_down("resource", resource, outcome)
        with self._record("resource", resource.id):
            under = finish_destroying(self.store, resource.id, resource.status, self.store.process)
        if under is not None:
            self.step_lease(under)
        return _DONE

    # ---- leases

    def step_lease(self, id: int) -> Outcome:
        """Run the hook that lease `id` waits for, if nobody else does. What the hook raises is in the outcome."""
        found = self.store.leases.get(id)
        # What stands on it goes first, and the end of that comes back here.
        if found is None or found.status not in LEASE_MOVING or found.carries is not None:
            return _NOT_OURS
        if not self._claim("lease", id):
            return _NOT_OURS
        lease = self.store.leases.get(id)  # as it is now that it is ours
        assert lease is not None
        assert lease.resource is not None
        try:
            if lease.status is LeaseStatus.ACQUIRED:
                return self._activate_lease(lease, lease.resource)
            return self._destroy_lease(lease, lease.resource)
        except _TakenUpError:
            return _NOT_OURS

    def _activate_lease(self, lease: Lease, resource: Resource) -> Outcome:
        if resource.status is not ResourceStatus.ACTIVE:
            return self._throw_back(lease, resource)
        outcome = self._run(resource, "activate_lease", lease)
        if outcome.again_after is not None:
            return self._put_down("lease", lease, outcome)
        if outcome.gone is not None and self._withhold(lease, resource, outcome.gone):
            return self._throw_back(lease, resource)
        try:
            with self._record("lease", lease.id):
                if outcome.error:
                    reason = str(outcome.error)
                    self.store.move("lease", lease.id, LeaseStatus.ACQUIRED, LeaseStatus.BROKEN, reason=reason)
                    self._tell("lease.broken", resource, lease=lease, error=reason)
                elif self._still_active(resource):
                    self.store.move(
                        "lease", lease.id, LeaseStatus.ACQUIRED, LeaseStatus.ACTIVE,
                        worker=None, counting_from=self.store.uptime(), boot=self.store.boot,
                    )  # fmt: skip
                    self._tell("lease.activated", resource, lease=lease, fence=lease.fence)
                    return _DONE
        except Conflict:  # released while it was being prepared
            pass
        cleaned_up = self.step_lease(lease.id)
        return outcome if outcome.error else cleaned_up

    def _withhold(self, lease: Lease, resource: Resource, reason: str) -> bool:
        """What a pool finds gone as it is handed out takes no leases before a look has found it again, and the request
        goes on to another. False where nobody looks, so that it would be given the same again."""
        with self._record("lease", lease.id):
            if not self.store.offers.withhold(resource.id):
                return False
            self._tell("resource.gone", resource, lease=lease, reason=reason)
            self.store.events.add_names("binding.missing", resource.blueprint, [resource.name])
            release_resource(self.store, resource.id, self.store.process, reason)
        return True

    def _still_active(self, resource: Resource) -> bool:
        now = self.store.resources.get(resource.id)
        return now is not None and now.status is ResourceStatus.ACTIVE

    def _throw_back(self, lease: Lease, resource: Resource) -> Outcome:
        # The resource failed before the lease was ready: the request is as good as new, and holds nothing of the old.
        if "destroy_lease" in resource.hooks:
            outcome = self._run(resource, "destroy_lease", lease)
            if outcome.error:
                outcome = self._clean_later(lease, resource, outcome)
            if outcome.again_after is not None:
                return self._put_down("lease", lease, outcome)
        try:
            with self._record("lease", lease.id):
                self.store.slot_locks.free(lease.slot_locks, f"lease:{lease.id}")
                self.store.move(
                    "lease", lease.id, LeaseStatus.ACQUIRED, LeaseStatus.PENDING,
                    resource=None, fence=None, slot_locks="[]", granted_at=None, worker=None, failures=0,
                )  # fmt: skip
                self._tell("lease.reacquired", resource, lease=lease)
                self.store.wake(self.store.leases.process_of(lease.id))
                self.store.freed(lease.type)  # it waits again, and there may be something for it
                vacate(self.store, resource.id, resource.hooks, self.store.process)
        except Conflict:  # released while it was cleaned up after, which needs to be done once
            return self._finish(lease.id)
        self.step_resource(resource.id)
        return _DONE

    def _destroy_lease(self, lease: Lease, resource: Resource) -> Outcome:
        outcome = self._run(resource, "destroy_lease", lease) if "destroy_lease" in resource.hooks else _DONE
        if outcome.error:
            outcome = self._clean_later(lease, resource, outcome)
        if outcome.again_after is not None:
            return self._put_down("lease", lease, outcome)
        return self._finish(lease.id)

    def _finish(self, lease: int) -> Outcome:
        with self._record("lease", lease):
            ending = self.store.leases.ending(lease)
            assert ending is not None
            to_tear_down = end_lease(self.store, lease, ending, worker=self.store.process)
        if to_tear_down is not None:
            self.step_resource(to_tear_down)
        return _DONE

    def _clean_later(self, lease: Lease, resource: Resource, outcome: Outcome) -> Outcome:
        with self._record("lease", lease.id):
            failures = self.store.leases.count_failure(lease.id)
            outcome = outcome._replace(again_after=_retry_after(failures))
            self._tell("lease.destroy-failed", resource, lease=lease, error=str(outcome.error), failures=failures,
                       again_after=outcome.again_after)  # fmt: skip
        return outcome

    # ---- giving back

    def release(
        self, lease: int, reason: str | None = None, *, fence: int | None = None, broken: str | None = None
    ) -> bool:
        """Give back a lease, whatever its status, and do what that leaves to be done. False if it was over already.

        With `fence`, only if that is the lease's own: raises `LeaseLost` otherwise, and when it was over already.
        `broken` says why nobody else may have its resource.
        """
        with self.store.write():
            if fence is not None:
                check_held(self.store, lease, fence)
            if broken is None:
                done = release_lease(self.store, lease, self.store.process, reason)
            else:
                done = release_broken(self.store, lease, self.store.process, broken)
        if done.lease is not None:
            self._finish_upon(done.lease)
            self.step_lease(done.lease)
        if done.resource is not None:
            self.step_resource(done.resource)
        return done.released

    def withdraw(self, leases: Sequence[int], reason: str, *, of: str | None = None) -> None:
        """Give back the leases of one request in one transaction: what is left of it must not be served meanwhile.
        `of`: only those that are bound to this process."""
        with self.store.write():
            if of is not None:
                leases = [lease for lease in leases if self.store.leases.process_of(lease) == of]
            done = [release_lease(self.store, lease, self.store.process, reason) for lease in leases]
        self.drop_builds(leases)
        for one in done:
            if one.lease is not None:
                self.step_lease(one.lease)
            if one.resource is not None:
                self.step_resource(one.resource)

    def drop_builds(self, leases: Sequence[int]) -> None:
        """Tear down what is still being built for these leases, since they need it no more."""
        for lease in leases:
            building = self.store.resources.built_for(lease)
            if building is not None:
                with contextlib.suppress(Conflict), self.store.write():
                    start_destroying(self.store, building, ResourceStatus.PENDING, "resource.released")
                self.step_resource(building)

    def release_resource(self, resource: int, reason: str | None = None) -> bool:
        """Take a resource out of use, its leases first, and tear it down. False if it was on its way out already."""
        with self.store.write():
            released = release_resource(self.store, resource, self.store.process, reason)
        self._finish_resource(resource)
        return released

    def _finish_resource(self, resource: int) -> None:
        for lease in self.store.leases.on_resource(resource):
            self._finish_upon(lease)
            self.step_lease(lease)
        self.step_resource(resource)

    def _finish_upon(self, lease: int) -> None:
        """Tear down what stands on a lease that is over."""
        found = self.store.leases.get(lease)
        if found is not None and found.carries is not None and found.status in LEASE_MOVING:
            self._finish_resource(found.carries)

    # ---- what they share

    def _claim(self, table: str, id: int) -> bool:
        with self.store.write():
            return self.store.claim(table, id)

    @contextlib.contextmanager
    def _record(self, table: str, id: int) -> Iterator[None]:
        """A transaction for what a hook came to. Raises `_TakenUpError` when another process has taken it up."""
        with self.store.write():
            if not self.store.has_claimed(table, id):
                raise _TakenUpError
            self._tell_what_was_printed()
            yield
        self._printed.clear()

    def _tell_what_was_printed(self) -> None:
        for printed in self._printed:
            self.store.events.add(**printed)

    def _row(self, resource: Resource) -> Blueprint:
        row = self.store.offers.blueprint(resource.blueprint)
        if row is None:
            raise NotFound("blueprint", resource.blueprint)
        return row

    def _run(self, resource: Resource, step: str, lease: Lease | None = None) -> Outcome:
        came = self._hook(self._row(resource), step, resource, lease)
        match came.error:
            case Yield() as later:
                return Outcome(moved=False, again_after=later.after)
            case Gone() as gone:
                error = BlueprintError(resource.blueprint, step, f"Gone: {gone}")
                return Outcome(moved=True, error=error, gone=printable(gone.reason))
            case BlueprintError() as error:
                return Outcome(moved=True, error=error)
        return _DONE

    def _hook(self, row: Blueprint, hook: str, resource: Resource | None = None, lease: Lease | None = None) -> Came:
        """Run a hook about this lease or resource, or about all of the blueprint."""
        about = ("lease", lease.id) if lease else ("resource", resource.id) if resource else ("blueprint", row.id)
        folder = self.store.hooks_folder
        came = self.hooks.run(
            Call(
                blueprint=row.name,
                kind=row.kind,
                settings=self.store.offers.settings(row.id),
                source=self.store.offers.sources().get(row.source) if row.source else None,
                hook=hook,
                resource=resource and self.resource_info(resource),
                lease=lease and LeaseInfo(lease.id, lease.owner, lease.attributes, lease.fence or 0),
                held=None if resource else frozenset(self.store.offers.leased(row.id)),
                config=self.store.offers.config(),
                environment=self.environment,
                lock=None if folder is None else f"{folder}/{about[0]}-{about[1]}",
                here=lambda: self.blueprint(row),
            )
        )
        if came.output:
            self._printed.append(
                {
                    "event": f"{about[0]}.output", "lease": lease and lease.id, "resource": resource and resource.id,
                    "blueprint": row.name, "hook": hook, "output": came.output,
                }
            )  # fmt: skip
        return came

    # ---- looking whether it is still there

    def observe(self, id: int) -> None:
        """Ask the kind whether an active resource is still there, if nobody else does just now."""
        with self.store.write():
            if not self.store.resources.take_look(id, self.store.clock()):
                return
        resource = self.store.resources.get(id)
        if resource is None or resource.status is not ResourceStatus.ACTIVE:
            return
        outcome = self._run(resource, "observe")
        if not outcome.error and not self._printed:
            return
        lost = False
        with self.store.write():
            self._tell_what_was_printed()
            if outcome.gone is not None:
                lost = release_resource(self.store, id, None, outcome.gone)
                if lost:
                    self._tell("resource.gone", resource, reason=outcome.gone)
            elif outcome.error:
                self._tell("resource.observe-failed", resource, error=str(outcome.error))
        self._printed.clear()
        if lost:
            self._finish_resource(id)

    def look_for_missing(self, name: str) -> None:
        """Ask a pool which of its bindings are not there, if nobody else does just now, and withhold those."""
        with self.store.write():
            if not self.store.offers.take_look(name, self.store.clock()):
                return
        row = self.store.offers.blueprint(name)
        if row is None:
            return
        before = self.store.offers.fences(row.id)
        came = self._hook(row, "missing")
        unknown = next((one for one in came.answer or () if one not in before), None)
        if unknown is not None:
            came = Came(BlueprintError(name, "missing", f"it has no binding {quoted(unknown)}"))
        gone: list[str] = []
        back: list[str] = []
        with self.store.write():
            self._tell_what_was_printed()
            if came.error:
                self.store.events.add("blueprint.observe-failed", blueprint=name, error=str(came.error))
            else:
                # What was leased since was there, and is in use by whoever leased it.
                since = self.store.offers.fences(row.id)
                missing = [name for name in came.answer if since.get(name) == before.get(name)]
                gone, back = self.store.offers.set_missing(row.id, missing)
            if gone or back:
                self.store.offers.changed()
            self.store.events.add_names("binding.missing", name, gone)
            self.store.events.add_names("binding.back", name, back)
        self._printed.clear()

    def _put_down(self, table: str, about: Lease | Resource, outcome: Outcome) -> Outcome:
        with self._record(table, about.id):
            found = getattr(self.store, f"{table}s").get(about.id)
            # What was released meanwhile is due at once, however long the hook before wanted to wait.
            same = found is not None and found.status is about.status
            later = outcome.again_after if same or outcome.error else None
            self.store.put_down(table, about.id, later or 0.0)
        return outcome

    def _tell(self, event: str, resource: Resource, *, lease: Lease | None = None, **data: object) -> None:
        self.store.events.add(
            event,
            lease=lease.id if lease else None,
            resource=resource.id,
            blueprint=resource.blueprint,
            **data,
        )


def _retry_after(failures: int) -> float:
    return float(min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20), LONGEST_RETRY_SECONDS))
