"""Drydock hands each process exactly one of your shared things, never the same one twice.

import drydock

with drydock.connect() as dock, dock.lease("host") as lease:
    print(lease.resource.name)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Connection, connect

__all__ = ["Connection", "connect"]


def __getattr__(name: str) -> Any:
    # What most commands never need is imported when it is first asked for.
    if name in __all__:
        from . import api

        return getattr(api, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("drydock-allocator")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
