"""Drydock hands each process exactly one of your shared things, never the same one twice.

import drydock

with drydock.connect() as dock, dock.lease("host") as lease:
    print(lease.resource.name)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import errors, fencing
    from .api import Connection, connect

__all__ = ["Connection", "connect", "errors", "fencing"]


def __getattr__(name: str) -> Any:
    # What most commands never need is imported when it is first asked for.
    if name in ("errors", "fencing"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    if name in __all__:
        from . import api

        return getattr(api, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("drydock-allocator")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
