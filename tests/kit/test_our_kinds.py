"""Our own kinds, and the small ones of the guide, pass the kit that strangers use."""

from pathlib import Path
from typing import Any

from drydock_blueprints.almanac_hosts import AlmanacHosts
from drydock_blueprints.host_pool import HostPool
from drydock_blueprints.scratch_dir import MARKER, ScratchDir

from drydock.testing import BlueprintContract


class TestHostPool(BlueprintContract):
    kind = HostPool

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"hosts": ["h1", {"name": "h2", "address": "10.0.0.2", "attributes": {"arch": "arm64"}}]}


class TestAlmanacHosts(BlueprintContract):
    kind = AlmanacHosts

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"services": ["build"]}

    def source(self, folder: Path) -> dict[str, Any]:
        return {"device": {"d1": {}, "d2": {"address": "10.0.0.2"}}, "service": {"build": {"devices": ["d1", "d2"]}}}


class TestScratchDir(BlueprintContract):
    kind = ScratchDir
    wanted = {"label": "nightly"}

    def settings(self, folder: Path) -> dict[str, Any]:
        (folder / MARKER).touch()
        return {"root": str(folder)}
