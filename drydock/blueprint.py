"""All that the author of a kind imports.

A blueprint proposes, the allocator disposes. A `Pool` declares its bindings once, when the pool file is applied; a
`Builder` yields plans for each request, best first. Either way each thing names the slot locks that it needs, and the
allocator uses the first whose slot locks are all free. Authors never take or free a lock.

What is promised to a hook: it never runs inside a transaction, and never twice at once for one object. It may run
twice one after the other, since a crash can lie between its effect and the record of it: a second call must be
harmless. It may raise `Yield(after)` to be called again later; anything else that it raises breaks the one object
that it was about, and nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from .attributes import check_name, check_text, fits, parse_duration
from .errors import ConfigError, Refused, Yield, listed, quoted
from .model import Attributes
from .slots import SlotLock, slot_lock

__all__ = [
    "Attributes",
    "Binding",
    "Blueprint",
    "Builder",
    "ConfigError",
    "LeaseInfo",
    "Plan",
    "Pool",
    "Refused",
    "ResourceInfo",
    "Setting",
    "SlotLock",
    "Yield",
    "check_name",
    "check_text",
    "fits",
    "listed",
    "parse_duration",
    "quoted",
    "slot_lock",
]

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


class Plan(NamedTuple):
    """A resource that could be built."""

    name: str
    slot_locks: tuple[SlotLock, ...]  #: what the resource holds from before it is built until it is destroyed
    attributes: Attributes = {}
    lease_locks: tuple[SlotLock, ...] = ()  #: what each lease on it needs, besides its seat


class ResourceInfo(NamedTuple):
    """What a hook is told of the resource that it is about."""

    id: int
    name: str
    type: str
    attributes: Attributes


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

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        """Prepare the resource for this lease. The lease becomes active when this returns."""

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        """Clean up after this lease, ready or not. Its seat is freed when this returns."""


class Pool(Blueprint):
    """A blueprint that hands out bindings which are there already."""

    grace: ClassVar[float] = 0.0  # nothing is lost when an idle binding goes to somebody else

    def bindings(self) -> Iterable[Binding]:
        """All bindings, in the order in which they are to be used first. Called when a pool file is applied."""
        raise NotImplementedError


class Builder(Blueprint):
    """A blueprint that builds what is asked for."""

    def plans(self, wanted: Attributes) -> Iterable[Plan]:
        """What could be built for `wanted`, best first; nothing at all means "never".

        Called outside any transaction, as often as it takes; yield the same plans for the same request. Plans whose
        slot locks are taken are passed over, so yield those too: they mean "not now".
        """
        raise NotImplementedError
