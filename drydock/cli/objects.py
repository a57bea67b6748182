"""The objects of `--json`: the shapes that other programs rely on. Moments are RFC 3339 in UTC, ids are integers."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..model import Binding, Blueprint, Event, Lease, Resource, SlotLockRow

if TYPE_CHECKING:
    from ..waiting import Waiting


def moment(seconds: float | None) -> str | None:
    """RFC 3339 with milliseconds, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def held_until(row: Lease, ends_at: float | None) -> dict[str, Any]:
    """A lease, and the moment at which it ends unless it is renewed, as `Leases.ends` tells it."""
    return {**lease(row), "ends_at": moment(ends_at)}


def lease(row: Lease) -> dict[str, Any]:
    return {
        "id": row.id,
        "status": row.status,
        "type": row.type,
        "blueprint": row.resource.blueprint if row.resource else None,
        "owner": row.owner,
        "priority": row.priority,
        "attributes": row.attributes,
        "fence": row.fence,
        "until": moment(row.until),
        "ttl": row.ttl,
        "created_at": moment(row.created_at),
        "granted_at": moment(row.granted_at),
        "ended_at": moment(row.ended_at),
        "reason": row.reason,
        "slot_locks": row.slot_locks,
        "resource": _held(row.resource) if row.resource else None,
    }


def waiting(row: Lease, why: "Waiting") -> dict[str, Any]:
    """A request that waits: its first lease, and why it waits."""
    return {
        **lease(row),
        "leases": why.leases,
        "rank": why.rank,
        "wanted": why.wanted,
        "free": why.free,
        "kept_for": [{"lease": one.lease, "wants": one.wants} for one in why.kept_for],
        "held": why.held,
        "holders": [
            {
                "lease": holder.lease,
                "owner": holder.owner,
                "resource": holder.resource,
                "name": holder.name,
                "since": moment(holder.since),
                "until": moment(holder.ends_at),
            }
            for holder in why.holders
        ],
        "estimate_seconds": None if why.estimate_seconds is None else round(why.estimate_seconds, 3),
    }


def _held(row: Resource) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "type": row.type,
        "blueprint": row.blueprint,
        "status": row.status,
        "attributes": row.attributes,
    }


def resource(row: Resource) -> dict[str, Any]:
    return {
        **_held(row),
        "fence": row.fence,
        "seats": row.seats,
        "leases": row.used,
        "slot_locks": row.slot_locks,
        "created_at": moment(row.created_at),
        "idle_since": None if row.used else moment(row.idle_since),
        "failures": row.failures,
        "next_try_at": moment(row.not_before) if row.failures else None,
        "rests_until": moment(row.rests_until),
        "until": moment(row.until),
        "ttl": row.ttl,
        "given_up": row.given_up,
    }


def blueprint(row: Blueprint) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "type": row.type,
        "enabled": row.enabled,
        "seats": row.seats,
        "limit": row.limit,
        "grace": row.grace,
        "cooldown": row.cooldown,
        "lifetime": row.lifetime,
        "ttl": row.ttl,
        "resources": row.live,
    }


def binding(row: Binding) -> dict[str, Any]:
    return {"name": row.name, "blueprint": row.blueprint, "enabled": row.enabled, "resource": row.resource}


def lock(row: SlotLockRow) -> dict[str, Any]:
    return {"key": row.key, "holder": row.holder, "taken_at": moment(row.taken_at)}


def event(row: Event) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": moment(row.at),
        "event": row.event,
        "lease": row.lease,
        "resource": row.resource,
        "blueprint": row.blueprint,
        "data": row.data,
    }
