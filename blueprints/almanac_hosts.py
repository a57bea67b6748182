"""`almanac-hosts`: hosts from an inventory that several blueprints may share.

    [blueprint.build]
    kind = "almanac-hosts"
    services = ["build-pool"]
    ssh = { user = "ci" }      # as of `host-pool`, and so is `local`

    [almanac.device.build001]
    address = "10.0.0.1"
    enabled = false            # out of service: no new lease; those that are there stay

    [almanac.service.build-pool]
    devices = ["build001"]

A service binds devices. However many services and blueprints name a device, it is one thing with one slot lock,
`almanac.host.binding(DEVICE)`, so it is never handed out twice.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from drydock.blueprint import (
    Binding,
    ConfigError,
    Interface,
    Pool,
    ResourceInfo,
    Setting,
    check_name,
    listed,
    quoted,
    slot_lock,
)

from .host_pool import WAY, check_way, host_attributes, way_to


class AlmanacHosts(Pool):
    """The devices of the services that it names, each a binding."""

    type = "host"
    summary = "hosts of the [almanac] inventory, by service"
    settings_schema = {"services": Setting(list, "names of [almanac.service.NAME] tables"), **WAY}
    source_table = "almanac"
    shares_bindings = True

    @classmethod
    def check_source(cls, source: Mapping[str, Any]) -> None:
        for group in source:
            if group not in ("device", "service"):
                raise ConfigError(f'almanac: unknown table {quoted(group)}; known: "device", "service"')
            if not isinstance(source[group], Mapping):
                raise ConfigError(f"almanac: {quoted(group)} must be a table of tables")
        devices = source.get("device", {})
        for name, device in devices.items():
            where = f"almanac device {quoted(name)}"
            check_name(name, where)
            if not isinstance(device, Mapping):
                raise ConfigError(f"{where} must be a table")
            if not isinstance(device.get("enabled", True), bool):
                raise ConfigError(f'{where}: "enabled" must be true or false')
            host_attributes(device, where, known=("enabled",))
        for name, service in source.get("service", {}).items():
            where = f"almanac service {quoted(name)}"
            check_name(name, where)
            if not isinstance(service, Mapping) or not isinstance(service.get("devices"), list):
                raise ConfigError(f'{where} must be a table with a list "devices"')
            for device in service["devices"]:
                if not isinstance(device, str) or device not in devices:
                    raise ConfigError(f"{where}: no device {quoted(device)}; known devices: {listed(devices)}")

    def check(self) -> None:
        check_way(self.settings)

    def interface(self, resource: ResourceInfo) -> Interface:
        return way_to(resource, self.settings)

    def bindings(self) -> Iterator[Binding]:
        devices, services = self.source.get("device", {}), self.source.get("service", {})
        bound: dict[str, None] = {}
        for service in self.settings["services"]:
            if not isinstance(service, str) or service not in services:
                raise ConfigError(f"no almanac service {quoted(service)}; known services: {listed(services)}")
            bound.update(dict.fromkeys(services[service]["devices"]))
        for name in bound:
            yield Binding(
                name,
                slot_lock("almanac.host.binding", name),
                host_attributes(devices[name], name, known=("enabled",)),
                enabled=devices[name].get("enabled", True),
            )
