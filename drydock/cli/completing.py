"""What the shell offers when the user presses Tab: it asks the store, and stays silent when that cannot answer."""

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..store.base import Store

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _from_store(ask: Callable[["Store"], Iterable[object]]) -> Completer:
    def complete(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
        from ..store import open_store

        named = ctx.params.get("store") or ctx.find_root().params.get("store")
        try:
            with closing(open_store(named, read_only=True)) as store:
                return [text for text in map(str, ask(store)) if text.startswith(begun)]
        except Exception:  # noqa: BLE001 - a shell must never see an error of ours while the user types
            return []

    return complete


types = _from_store(lambda store: sorted({b.type for b in store.offers.blueprints()}))
blueprint_names = _from_store(lambda store: [b.name for b in store.offers.blueprints()])
lease_ids = _from_store(lambda store: [lease.id for lease in store.leases.live()])
resource_ids = _from_store(lambda store: [resource.id for resource in store.resources.live()])
targets = _from_store(
    lambda store: [
        *(f"blueprint:{b.name}" for b in store.offers.blueprints()),
        *(f"binding:{b.name}" for b in store.offers.bindings()),
    ]
)
