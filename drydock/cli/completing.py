"""What the shell offers when the user presses Tab: it asks the store, and stays silent when that cannot answer."""

from collections.abc import Callable, Iterable

import click

from .app import App

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _from_store(ask: Callable[[App], Iterable[object]]) -> Completer:
    def complete(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
        app = App((ctx.find_root().params or {}).get("store") or ctx.params.get("store"))
        try:
            return [text for text in map(str, ask(app)) if text.startswith(begun)]
        except Exception:  # noqa: BLE001 - a shell must never see an error of ours while the user types
            return []
        finally:
            app.close()

    return complete


types = _from_store(lambda app: sorted({b.type for b in app.store.offers.blueprints()}))
blueprint_names = _from_store(lambda app: [b.name for b in app.store.offers.blueprints()])
lease_ids = _from_store(lambda app: [lease.id for lease in app.store.leases.live()])
resource_ids = _from_store(lambda app: [resource.id for resource in app.store.resources.live()])
targets = _from_store(
    lambda app: [
        *(f"blueprint:{b.name}" for b in app.store.offers.blueprints()),
        *(f"binding:{b.name}" for b in app.store.offers.bindings()),
    ]
)
