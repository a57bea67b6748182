"""All that the author of a kind imports.

A blueprint proposes, the allocator disposes. A `Pool` declares its bindings once, when the pool file is applied; a
`Builder` yields plans for each request, best first. Either way each thing names the slot locks that it needs, and the
allocator uses the first whose slot locks are all free. Authors never take or free a lock.

What is promised to a hook: it never runs inside a transaction, and never twice at once for one object. It may run
twice one after the other, since a crash can lie between its effect and the record of it: a second call must be
harmless. It may raise `Yield(after)` to be called again later; anything else that it raises breaks the one object
that it was about, and nothing else.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .attributes import check_name, check_text, fits, parse_duration
from .errors import CommandFailed, ConfigError, Gone, Refused, Unreachable, Yield, listed, quoted
from .interfaces import Interface, Local, Ssh, check_interface, get_file, put_file, run_on
from .model import Attributes
from .slots import SlotLock, slot_lock

if TYPE_CHECKING:
    from socket import socket

__all__ = [
    "API",
    "Attributes",
    "Binding",
    "Blueprint",
    "Builder",
    "CommandFailed",
    "ConfigError",
    "Gone",
    "Interface",
    "LeaseInfo",
    "Local",
    "Need",
    "Plan",
    "Pool",
    "Refused",
    "ResourceInfo",
    "Setting",
    "SlotLock",
    "Ssh",
    "Support",
    "Unreachable",
    "Yield",
    "check_interface",
    "check_name",
    "check_text",
    "fits",
    "get_file",
    "listed",
    "parse_duration",
    "put_file",
    "quoted",
    "run_on",
    "slot_lock",
]

#: the version of this interface; a kind that was written for another one says so in `api`, and is not loaded
API = 1

REQUIRED: Any = object()


class Setting(NamedTuple):
    """One setting of a kind, as the pool file may give it."""

    type: type  #: list, str, int, float, bool or dict
    help: str
    default: Any = REQUIRED


class Binding(NamedTuple):
    """A real thing that a pool hands out."""

    name: str
    slot_lock: SlotLock  #: what makes it one thing: two bindings with the same key are never live together
    attributes: Attributes = {}
    lease_locks: tuple[SlotLock, ...] = ()  #: what each lease on it needs, besides its seat
    enabled: bool = True  #: False: no new lease; it is out of service where it is declared


class Need(NamedTuple):
    """What a resource must stand on: something that is leased for it before it is built, and given back when it is gone."""

    type: str
    attributes: Attributes = {}
    blueprints: tuple[str, ...] = ()  #: from these alone; none: from any
    passes_on: tuple[str, ...] = ()  #: attributes of what is leased that the resource then has, too, such as its port


class Plan(NamedTuple):
    """A resource that could be built."""

    name: str
    slot_locks: tuple[SlotLock, ...]  #: what the resource holds from before it is built until it is destroyed
    attributes: Attributes = {}
    lease_locks: tuple[SlotLock, ...] = ()  #: what each lease on it needs, besides its seat
    on: Need | None = None  #: what it is built on, such as a host


class Support(NamedTuple):
    """What a resource stands on: the thing that its `Plan.on` was given."""

    name: str
    type: str
    attributes: Attributes
    interface: Interface | None  #: how to get there; None where its kind has no way


class ResourceInfo(NamedTuple):
    """What a hook is told of the resource that it is about."""

    id: int
    name: str
    type: str
    attributes: Attributes
    on: Support | None = None  #: what it stands on, if its plan asked for something


class LeaseInfo(NamedTuple):
    """What a hook is told of the lease that it is about."""

    id: int
    owner: str
    attributes: Attributes  #: what was asked for
    fence: int


class Blueprint:
    """What pools and builders have in common. Subclass one of these two, not this.

    `self.settings` are the checked settings with defaults filled in; `self.source` is the shared table of the pool
    file that `source_table` names, or an empty dict.
    """

    #: the version of this interface that it was written for
    api: ClassVar[int] = 1
    #: the type of thing it makes; None: the pool file must say `type = ...`
    type: ClassVar[str | None] = None
    #: one line for `drydock blueprints --kinds`
    summary: ClassVar[str] = ""
    settings_schema: ClassVar[Mapping[str, Setting]] = {}
    #: a top-level table of the pool file that blueprints of this kind share, such as "almanac"
    source_table: ClassVar[str | None] = None
    #: seconds that an idle resource is left alone before it may be reclaimed; the pool file's `grace` overrides it
    grace: ClassVar[float] = 180.0
    #: seconds that a resource rests when a lease on it was lost (its time was up, its process died) instead of given back
    cooldown: ClassVar[float] = 0.0
    #: seconds after which a resource goes, with the leases on it; None: never for that reason
    lifetime: ClassVar[float | None] = None
    #: seconds after its last lease at which an idle resource goes; None: it stays
    ttl: ClassVar[float | None] = None
    #: seconds after which a hook that has not returned is killed, with all that it started, and has failed
    time_limit: ClassVar[float] = 600.0
    #: seconds between two looks at the outside truth, where the kind has such a look (`observe`, `missing`)
    observe_every: ClassVar[float] = 60.0
    #: True: several blueprints of this kind may list one thing, because the source is meant to be shared
    shares_bindings: ClassVar[bool] = False

    def __init__(self, name: str, settings: Mapping[str, Any], source: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.settings = settings
        self.source = source or {}

    @classmethod
    def check_source(cls, source: Mapping[str, Any]) -> None:
        """Raise `ConfigError` if the shared table cannot be meant. Called when a pool file is applied."""

    def check(self) -> None:
        """Raise `ConfigError` if the settings cannot be meant. Called when a pool file is applied."""

    def activate(self, resource: ResourceInfo) -> None:
        """Build it. It becomes active when this returns, and broken when this raises."""

    def destroy(self, resource: ResourceInfo) -> None:
        """Tear it down, however much of it was built. Its slot locks are freed when this returns."""

    def interface(self, resource: ResourceInfo) -> Interface:
        """Where commands for this resource run. Must be quick and do nothing: it is asked wherever one is started."""
        raise ConfigError(f"{quoted(self.name)} has no way to run a command on {quoted(resource.name)}")

    def sockets(self, resource: ResourceInfo) -> "Sequence[socket]":
        """Open sockets for the command of `drydock run`, which finds them as LISTEN_FDS says. Called in the process of
        `run` itself, and must be quick. Where this raises `Gone`, the lease is given back, and another one asked for."""
        return ()

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        """Prepare the resource for this lease. The lease becomes active when this returns.

        Where this raises `Gone`, and the kind is a pool that says what is `missing`, the request goes on to another
        binding; this one is withheld until the next look."""

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        """Clean up after this lease, ready or not, for the next one. Its seat is freed when this returns."""


class Pool(Blueprint):
    """A blueprint that hands out bindings which are there already."""

    grace: ClassVar[float] = 0.0  # nothing is lost when an idle binding goes to somebody else

    def bindings(self) -> Iterable[Binding]:
        """All bindings, in the order in which they are to be used first. Called when a pool file is applied."""
        raise NotImplementedError

    def missing(self, held: Collection[str]) -> Iterable[str]:
        """The names of the bindings that are not there just now; they are withheld until a later look finds them.
        `held` are the names of those that are leased just now: whoever holds one keeps it, and it is withheld when he
        gives it back. What this raises means that it could not be seen: what was missing before stays so. Called every
        `observe_every` seconds, in a process of its own."""
        return ()


class Builder(Blueprint):
    """A blueprint that builds what is asked for."""

    #: names that a request's attributes may have which are about the lease alone, such as which branch to check out:
    #: no resource need have them, and `activate_lease` finds them in `lease.attributes`
    per_lease: ClassVar[tuple[str, ...]] = ()

    def plans(self, wanted: Attributes) -> Iterable[Plan]:
        """What could be built for `wanted`, best first; nothing at all means "never".

        Called outside any transaction, as often as it takes; yield the same plans for the same request. Plans whose
        slot locks are taken are passed over, so yield those too: they mean "not now".
        """
        raise NotImplementedError

    def observe(self, resource: ResourceInfo) -> None:
        """Look whether an active resource is still there; raise `Gone(why)` if it is not. Anything else that this raises
        means that it could not be seen. Called every `observe_every` seconds."""
