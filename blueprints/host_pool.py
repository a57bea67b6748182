"""`host-pool`: a list of hosts.

    [blueprint.lab]
    kind = "host-pool"
    hosts = ["h1", { name = "h3", address = "10.0.0.3", port = 22, attributes = { arch = "arm64" } }]
    ssh = { user = "ci", identity_file = "/etc/drydock/id", known_hosts = "/etc/drydock/known_hosts" }   # each optional

A host's address and port are attributes of it too, so that whoever leases it learns where it is; `drydock command` goes
there over ssh. A host without an address is reached by its name. What `ssh` does not say is up to the ssh configuration of
whoever runs the command. `local = true` says instead that the hosts are this very machine, by some names.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from drydock.blueprint import (
    Binding,
    ConfigError,
    Interface,
    Local,
    Pool,
    ResourceInfo,
    Setting,
    Ssh,
    check_interface,
    check_name,
    listed,
    quoted,
    slot_lock,
)

MOST_PORTS = 65535
#: how commands get to a host
WAY = {
    "ssh": Setting(dict, "how to log in: user, identity_file, known_hosts", {}),
    "local": Setting(bool, "whether the hosts are this very machine", False),
}


class HostPool(Pool):
    """A list of hosts, each a binding; its slot lock is `host(NAME)`."""

    type = "host"
    summary = "a list of hosts"
    settings_schema = {"hosts": Setting(list, "names, or tables with name, address, port, attributes"), **WAY}

    def check(self) -> None:
        check_way(self.settings)

    def bindings(self) -> Iterator[Binding]:
        for number, given in enumerate(self.settings["hosts"], start=1):
            host = {"name": given} if isinstance(given, str) else given
            if not isinstance(host, Mapping) or "name" not in host:
                raise ConfigError(f'host {number}: missing "name"')
            name = check_name(host["name"], f"host {number}")
            yield Binding(name, slot_lock("host", name), host_attributes(host, f"host {quoted(name)}"))

    def interface(self, resource: ResourceInfo) -> Interface:
        return way_to(resource, self.settings)


def check_way(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the settings of `WAY` cannot be meant."""
    for key in settings["ssh"]:
        if key not in ("user", "identity_file", "known_hosts"):
            raise ConfigError(f'ssh: unknown key {quoted(key)}; known keys: "user", "identity_file", "known_hosts"')
    if settings["ssh"] and settings["local"]:
        raise ConfigError('"ssh" and "local" exclude one another')
    try:
        check_interface(Ssh("localhost", **settings["ssh"]))
    except ConfigError as error:
        raise ConfigError(f"ssh: {error}") from None


def way_to(host: ResourceInfo, settings: Mapping[str, Any]) -> Interface:
    """How commands get to a host."""
    if settings.get("local"):  # neither is there of a blueprint that an older Drydock has applied
        return Local()
    port = host.attributes.get("port", 22)
    return check_interface(Ssh(host.attributes.get("address", host.name), port, **settings.get("ssh", {})))


def host_attributes(host: Mapping[str, Any], where: str, known: tuple[str, ...] = ("name",)) -> dict[str, Any]:
    """The attributes of a host as a table gives them: its own, and its address and port. Raises `ConfigError`."""
    known = (*known, "address", "port", "attributes")
    for key in host:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {quoted(key)}; known keys: {listed(known)}")
    attributes = host.get("attributes", {})
    if not isinstance(attributes, Mapping):
        raise ConfigError(f'{where}: "attributes" must be a table, not {quoted(attributes)}')
    place: dict[str, Any] = {}
    if "address" in host:
        place["address"] = check_address(host["address"], where)
    if "port" in host:
        place["port"] = check_port(host["port"], where)
    for key in place:
        if key in attributes and attributes[key] != place[key]:
            raise ConfigError(f"{where}: {quoted(key)} is given twice, beside the attributes and among them")
    return {**attributes, **place}


def check_address(value: object, where: str) -> str:
    """`value` if it may be a host's address: it will stand on command lines, so it may not look like an option."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f'{where}: "address" must be a non-empty string, not {quoted(value)}')
    if value.startswith("-"):
        raise ConfigError(f'{where}: address {quoted(value)} may not start with "-"')
    if not all(c.isascii() and (c.isalnum() or c in ".:_-") for c in value) or len(value) > 253:
        raise ConfigError(f"{where}: address {quoted(value)} has a forbidden character, or is too long")
    return value


def check_port(value: object, where: str) -> int:
    if type(value) is not int or not 1 <= value <= MOST_PORTS:
        raise ConfigError(f"{where}: port must be a whole number from 1 to {MOST_PORTS}, not {quoted(value)}")
    return value
