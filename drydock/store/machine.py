"""Which processes of this machine still run, for a store that many machines share.

A name says where its lock can be looked at: the machine's start, and the file with its device and number. Whoever
finds the same file there knows at once who is dead (see `presence`); who is elsewhere, in another container or on
another machine, cannot tell, and goes by the time since the process was last heard of.
"""

import os
from collections.abc import Mapping

from ..errors import StoreError
from ..uptime import boot
from . import presence, state_folder


class Machine:
    """This machine, as the users of one store on it see it. `store` is the store's own name, so that each has a file."""

    def __init__(self, store: str, environment: Mapping[str, str] = os.environ) -> None:
        self._path = os.path.join(state_folder(environment), "drydock", f"postgres-{store}.live")
        #: a folder beside it, maybe not there yet, for what is about one hook
        self.hooks_folder: str | None = None
        self._where: str | None = None
        # Where nothing tells machines apart, or nobody can be seen, a process goes by what it tells the server alone.
        if not boot() or not os.path.isabs(self._path):
            return
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            device, number = presence.identity(self._path)
            presence.withdraw(self._path, presence.announce(self._path))  # not every file can be locked
        except (OSError, StoreError):
            return
        self.hooks_folder = self._path.removesuffix(".live") + ".hooks"
        self._where = f"{boot()}.{device:x}.{number:x}"

    def announce(self) -> str:
        """A new name for this process, which says that it lives until `withdraw` or its end."""
        if self._where is None:
            return f"0.0.0.{os.urandom(6).hex()}"
        return f"{self._where}.{presence.announce(self._path)}"

    def withdraw(self, name: str) -> None:
        """Let go of the name. May be called twice."""
        if self._is_here(name):
            presence.withdraw(self._path, _own(name))

    def is_alive(self, name: str) -> bool | None:
        """Whether the process of this name still runs; None: that cannot be seen from here."""
        return presence.is_alive(self._path, _own(name)) if self._is_here(name) else None

    def watch(self, name: str) -> bool:
        """Whether the connection of this name keeps watch: one does, of all that ask on this machine."""
        return self._where is None or presence.watch(self._path, _own(name))

    def unwatch(self, name: str) -> None:
        """Let another keep watch. May be called twice."""
        if self._where is not None:
            presence.unwatch(self._path, _own(name))

    def _is_here(self, name: str) -> bool:
        return self._where is not None and name.rpartition(".")[0] == self._where


def _own(name: str) -> str:
    return name.rpartition(".")[2]
