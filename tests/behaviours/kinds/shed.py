"""`shed`: a builder whose things stand on something, are looked at, and are given paint that no resource has; its hooks
behave as the `Control` of the same name in `behaviours.stage` says."""

import sys
from collections.abc import Iterator
from typing import ClassVar

from drydock.blueprint import Attributes, Builder, LeaseInfo, Need, Plan, ResourceInfo, Setting, slot_lock


class Shed(Builder):
    type = "shed"
    settings_schema: ClassVar = {
        "on": Setting(dict, "what one stands on: type, attributes, blueprints", {"type": "host"}),
        "size": Setting(int, "how many plans it yields", 5),
    }
    grace = 0.0
    per_lease = ("paint",)
    observe_every = 60.0

    def plans(self, wanted: Attributes) -> Iterator[Plan]:
        has = {name: value for name, value in wanted.items() if name not in self.per_lease}
        need = Need(**self.settings["on"])
        for n in range(self.settings["size"]):
            yield Plan(f"{self.name}-{n}", (slot_lock("shed", f"{self.name}-{n}"),), has, on=need)

    def activate(self, resource: ResourceInfo) -> None:
        assert resource.on is not None
        self._play("activate", f"resource:{resource.id}", f"{resource.name} built on {resource.on.name}")

    def destroy(self, resource: ResourceInfo) -> None:
        assert resource.on is not None
        self._play("destroy", f"resource:{resource.id}", f"{resource.name} gone from {resource.on.name}")

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        self._play("activate_lease", f"lease:{lease.id}", f"painted {lease.attributes.get('paint')}")

    def destroy_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        self._play("destroy_lease", f"lease:{lease.id}", "")

    def observe(self, resource: ResourceInfo) -> None:
        self._play("observe", f"resource:{resource.id}", "")

    def _play(self, hook: str, about: str, done: str) -> None:
        told = sys.modules["behaviours.stage"].control(self.name)
        told.play(hook, about)
        told.done += filter(None, [done])
