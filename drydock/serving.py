"""Serve the queue: the one place where it is decided what is given to whom; `handover` is a short way to the same.

The queue is walked in its order, inside one transaction, and each request decides in its turn. A request that can be
served is served there and then, whoever's transaction it is: the process that frees a thing hands it over, and wakes
its new holder after the commit. A request that could use what is there, and cannot yet, keeps it from those behind:
one that wants several until there are enough, and one whose blueprint must be asked for plans until its requester has
asked. Nobody else keeps anything from anybody, so a request that cannot use a thing never stands in the way of others.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from .allocator import Act, Ahead, Allocator, Decision, decide_together, give
from .attributes import canonical, fits
from .candidates import Candidates, candidates, free_sites, sites_with
from .endings import release_lease
from .errors import Conflict, DrydockError, StoreError
from .model import Demand
from .store.base import News, Store
from .store.leases import Waiter
from .store.resources import Room
from .store.seats import Seat

#: a requester that does not look for so long after he was told loses his turn to those behind him, not his place
PATIENCE_SECONDS = 2.0
MOST_KNOWN = 1000

_request, _at_work = attrgetter("request"), attrgetter("at_work")


class Mine(NamedTuple):
    """The request of whoever serves the queue: in its turn it decides for itself, since it may have plans at hand."""

    request: int
    decide: Callable[[Ahead, bool], Decision]  #: what is kept for others; whether an older one, just alike, has to wait


class Queue:
    """The queue of one store, as one connection serves it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[str, Candidates] = {}  # who could serve a demand, until something offered changes
        self.buildable: dict[str, int] = {}  # demands that some blueprint said it can serve, and when it was asked
        store.serve = self.serve_news

    def possible(self, demand: Demand, config: int | None = None) -> Candidates:
        """Who could ever serve `demand`; see `candidates.candidates` for what it raises. `config`: the store's, if it is
        known."""
        config = self.store.offers.config() if config is None else config
        key = key_of(demand.type, canonical(demand.blueprints), canonical(demand.attributes))
        found = self.known.get(key)
        if found is None or found.config != config:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            found = self.known[key] = candidates(self.store, demand)
        return found

    # ---- what became free

    def serve_news(self, news: Sequence[News]) -> None:
        """Give what became free in the open transaction to those who wait for it."""
        types = dict.fromkeys([one.type for one in news if one.resource is None])
        seats: dict[int, News] = {}
        for one in news:
            if one.resource is not None and one.type not in types:
                seats[one.resource] = one  # of each seat, the last that was told
        # Seat by seat, one who wants several would take the others before those who come first had a look at them.
        several = len(seats) > 1
        for resource, one in seats.items():
            room = None if several else self.serve(one.type, seat=resource, room=one.room)
            if several or (room and not room.used):  # nobody wants it as it is; somebody may want its place
                types.update(dict.fromkeys([one.type, *self.store.resources.types_beside(resource)]))
        for type in types:
            self.serve(type, planned=False)

    def serve(
        self,
        type: str,
        *,
        seat: int | None = None,
        room: Room | None = None,
        planned: bool = True,
        settled: bool = False,
        mine: Mine | None = None,
    ) -> Room | None:
        """Walk the queue of one type and give to each request what it can have. Return the seat, if nobody took it.

        `seat`: nothing but a seat on this resource became free; `room` is that resource, if it is known. `planned`:
        those whose blueprint must be asked have asked it since what they need last changed. `mine`: stop after this
        request. `settled`: nothing has become free since the others were served, so that they only keep what they keep.
        """
        ahead, config = Ahead(), self.store.offered
        cannot: set[str] = set()
        looked = False  # mine has looked for itself, and lets the next one look
        for request, group in groupby(self.store.leases.queue(type), _request):
            waiters = list(group)
            if seat is not None and room is None:
                room = self.store.resources.room(seat)
                if room is None:
                    return None
            key = key_of(type, waiters[0].blueprints, waiters[0].attributes)
            if self._is_too_late(waiters):
                if mine and request == mine.request:
                    break
                continue
            if mine and request == mine.request:
                decision = mine.decide(ahead, key in cannot)
                if waiters[0].owed is None or decision.act is Act.PLANS:
                    break
                self.store.leases.owe(waiters[0].id, None)
                looked = True
                if decision.act in (Act.WAIT, Act.AGAIN):
                    self._keep_together(waiters, self.candidates_of(key, type, waiters[0], config), ahead)
                continue
            if settled and len(waiters) == 1 and waiters[0].owed is None:
                cannot.add(key)
            if key in cannot and len(waiters) == 1:
                continue
            possible = self.candidates_of(key, type, waiters[0], config)
            useful = room is None or fitting(possible, room.shape, room.attributes)
            if (not useful and len(waiters) == 1) or self._is_dead(waiters) or not possible.enabled:
                continue
            if any(map(_at_work, waiters)):  # what it was given meanwhile it could not use
                if not self._all_are_built(waiters):
                    self._keep_together(waiters, possible, ahead)
                continue
            if looked:
                if roomy := self._roomy(possible, ahead):
                    self._let_him_ask(waiters[0], roomy, ahead, planned=False)
                    break
                continue
            if settled or not useful:
                self._hold_back(waiters, possible, ahead, planned=True)
                continue
            # One seat is no news for the builders of one lease; several may need it beside what can be built.
            asked = planned and (room is None or len(waiters) == 1)
            decision = self._decide(waiters, possible, ahead, room, planned=asked)
            if decision.act is Act.GRANTED and waiters[0].owed is not None:
                self.store.freed(type)  # he was to look first, and needs to no more: the next one is told
            if decision.act is Act.WAIT and len(waiters) == 1:
                cannot.add(key)
            if room:
                room = _left(room) if decision.resource == room.id else self.store.resources.room(room.id)
                if room is None:
                    return None
        return self.store.resources.room(seat) if room is None and seat is not None else room

    def _is_dead(self, waiters: Sequence[Waiter]) -> bool:
        """A request whose requester died is dropped, and what he had built or reclaimed for it is left to others."""
        process = waiters[0].process
        if process is None or process == self.store.process or self.store.is_alive(process):
            return False
        for waiter in waiters:
            with contextlib.suppress(Conflict):
                release_lease(self.store, waiter.id, self.store.process, "its process died")
        return True

    def _is_too_late(self, waiters: Sequence[Waiter]) -> bool:
        """A request whose time is up is dropped, or it would be given what must be taken from it at once."""
        until = waiters[0].until
        if until is None or until > self.store.clock():
            return False
        for waiter in waiters:
            with contextlib.suppress(Conflict):
                release_lease(self.store, waiter.id, self.store.process, "its time is up")
        return True

    def _all_are_built(self, waiters: Sequence[Waiter]) -> bool:
        """Whether nothing more is needed than what is being built for them."""
        return all(self.store.resources.built_for(waiter.id) is not None for waiter in waiters)

    def _decide(
        self, waiters: Sequence[Waiter], possible: Candidates, ahead: Ahead, seat: Room | None, *, planned: bool
    ) -> Decision:
        """Give a request of somebody else what can be given without asking a blueprint: this seat, if it is about one."""
        first = waiters[0]
        if seat and len(waiters) == 1 and (taken := give(self.store, first.id, seat, possible, ahead, first.process)):
            self.store.wake(first.process, [first.id])
            return taken
        # What his builders could build is for him to ask; here they count as asked, and nothing is reclaimed instead.
        roomy = self._roomy(possible, ahead)
        asked = () if possible.builders else None
        allocator = Allocator(
            self.store, possible,
            process=first.process, proposals=asked, ahead=ahead, may_reclaim=not roomy,
        )  # fmt: skip
        decision, granted = decide_together(allocator, [waiter.id for waiter in waiters])
        if granted or decision.act in (Act.BUILD, Act.CLEAR) or decision.again_at is not None:
            self.store.wake(first.process, granted)
        if decision.act in (Act.WAIT, Act.AGAIN):
            self._hold_back(waiters, possible, ahead, planned=planned)
        return decision

    def _hold_back(self, waiters: Sequence[Waiter], possible: Candidates, ahead: Ahead, *, planned: bool) -> None:
        """Keep from those behind what a request that must wait will use."""
        if roomy := self._roomy(possible, ahead):
            self._let_him_ask(waiters[0], roomy, ahead, planned=planned)
        self._keep_together(waiters, possible, ahead)

    def _keep_together(self, waiters: Sequence[Waiter], possible: Candidates, ahead: Ahead) -> None:
        """What several could use is theirs until there is enough for all of them."""
        if len(waiters) > 1 and self._may_come_together(possible, len(waiters)):
            ahead.keep(possible)

    def _let_him_ask(self, waiter: Waiter, roomy: set[int], ahead: Ahead, *, planned: bool) -> None:
        """Where builders have room, only the requester can find out whether he could use it. When that is news, he is
        told, and he has the first look: nobody behind him may build there until he has looked, or takes too long."""
        now = self.store.uptime()
        told = not planned and not roomy <= ahead.builders
        if told:
            self.store.wake(waiter.process)
        since = waiter.owed
        if since is None:
            if not told:
                return
            self.store.leases.owe(waiter.id, now)
            since = now
        # More news does not renew his patience, or one that is stopped would lose his turn never.
        if 0 <= now - since < PATIENCE_SECONDS:
            ahead.keep_builders(roomy, since + PATIENCE_SECONDS - now)

    def _roomy(self, possible: Candidates, ahead: Ahead) -> set[int]:
        """The builders that may have one more resource, and are not kept for others as a whole."""
        if not possible.builders:
            return set()
        builders = [c.blueprint.id for c in possible.builders if not ahead.keeps_all(c.shapes)]
        return {id for id in builders if self.store.offers.has_room(id)}

    def _may_come_together(self, possible: Candidates, number: int) -> bool:
        """Whether so many could be had at once if all were idle: things that are switched off do not count. Otherwise
        it would keep from others what it cannot use."""
        found = 0
        for c in possible.enabled:
            seats = c.blueprint.seats
            if not c.blueprint.pooled:
                # How many plans a builder has that sets no limit is not known; what was built is.
                usable = self.store.resources.usable
                most = usable(c.shapes, number) if c.blueprint.limit is None else c.blueprint.limit
            elif c.traits:
                sites = sites_with(self.store, c.shapes, c.traits)
                most = sum(free or self.store.resources.is_open(held) for _, free, held in sites)
            else:
                most = len(free_sites(self.store, c, number)) + self.store.resources.usable(c.shapes, number)
            most = min(most, number if c.blueprint.limit is None else c.blueprint.limit)
            found += number if seats is None else most * seats
        return found >= number

    def candidates_of(self, key: str, type: str, wanted: Waiter | Seat, config: int) -> Candidates:
        """Who could serve what is wanted, whose `key_of` is `key`: nobody if it cannot be read."""
        found = self.known.get(key)
        if found is not None and found.config == config:
            return found
        try:
            return self.possible(Demand(type, tuple(json.loads(wanted.blueprints)), json.loads(wanted.attributes)))
        except StoreError:
            raise  # then this transaction is lost
        except (DrydockError, ValueError):  # nobody offers it any more, for now; or its row is damaged
            return Candidates(config, ())


def key_of(type: str, blueprints: str, attributes: str) -> str:
    """What two requests have in common that can be served by the same things."""
    return f"{type} {blueprints} {attributes}"


def _left(room: Room) -> Room | None:
    """What is left when one more seat is taken."""
    return room._replace(used=room.used + 1) if room.used + 1 < room.seats else None


def fitting(possible: Candidates, shape: int, attributes: str) -> bool:
    """Whether a resource of this shape, with these attributes (JSON), could serve the request."""
    fit = (c for c in possible.enabled if shape in c.shapes)
    return any(not c.traits or fits(json.loads(attributes), c.traits) for c in fit)
