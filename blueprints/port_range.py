"""`port-range`: TCP ports of this machine.

    [blueprint.ports]
    kind = "port-range"
    ports = "9000-9199"        # or several: "8080, 9000-9199"
    address = "127.0.0.1"      # the address they are bound on

A lease is given a port that could really be bound a moment ago; one that somebody outside uses is withheld, and the
request goes on to the next. `drydock run` holds the port from the grant on with a bound socket, which its command
inherits as LISTEN_FDS says (systemd's protocol) and may listen on. A command that knows nothing of that binds the port
itself, DRYDOCK_ATTR_PORT, as long as it sets SO_REUSEADDR, as nearly every server does; for one that does not, set
`hand_over = false`. Only Linux lets two sockets have one port before either listens, so nothing is handed over
elsewhere. Whoever took the port with `drydock lease` or from Python has it from everybody who asks Drydock; until he
has bound it, the system may still give it to somebody who asks for any port. Ports outside of the range from which it
does so (/proc/sys/net/ipv4/ip_local_port_range) are safe from that.

The ports are those of one machine: where several share a store, each lease still has a port to itself, but what is in
use is seen by whoever looks.
"""

import errno
import ipaddress
import re
import socket
import sys
from collections.abc import Collection, Iterator, Sequence

from drydock.blueprint import Binding, ConfigError, Gone, LeaseInfo, Pool, ResourceInfo, Setting, quoted, slot_lock

MOST_PORTS = 65535

_RANGE = re.compile(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", re.ASCII)


class PortRange(Pool):
    """Each port is a binding `N`; its slot lock is `tcp-port(N)`, whatever the address: bound on all addresses, it would
    be taken on each."""

    type = "port"
    summary = "TCP ports that can really be bound"
    settings_schema = {
        "ports": Setting(str, 'ports and ranges of ports, such as "8080, 9000-9199"'),
        "address": Setting(str, "the IP address that they are bound on", "127.0.0.1"),
        "hand_over": Setting(bool, "whether the command of `drydock run` inherits a socket bound to its port", True),
    }
    observe_every = 30.0
    time_limit = 30.0

    def check(self) -> None:
        address = self.settings["address"]
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ConfigError(f'"address" must be an IP address, not {quoted(address)}') from None
        self._ports()

    def bindings(self) -> Iterator[Binding]:
        address = self.settings["address"]
        for port in self._ports():
            yield Binding(str(port), slot_lock("tcp-port", port), {"address": address, "port": port})

    def missing(self, held: Collection[str]) -> Iterator[str]:
        for port in self._ports():
            if str(port) not in held and not can_be_bound(self.settings["address"], port):
                yield str(port)

    def activate_lease(self, resource: ResourceInfo, lease: LeaseInfo) -> None:
        bound(resource.attributes["address"], resource.attributes["port"]).close()

    def sockets(self, resource: ResourceInfo) -> Sequence[socket.socket]:
        if not self.settings["hand_over"] or sys.platform != "linux":
            return ()
        return (bound(resource.attributes["address"], resource.attributes["port"]),)

    def _ports(self) -> list[int]:
        ports: dict[int, None] = {}
        for part in self.settings["ports"].split(","):
            found = _RANGE.fullmatch(part)
            if not found:
                raise ConfigError(
                    f'"ports": not a port or a range: {quoted(part)}; write "9000-9199" or "8080, 9000-9199"'
                )
            first, last = int(found[1]), int(found[2] or found[1])
            for port in (first, last):
                if not 1 <= port <= MOST_PORTS:
                    raise ConfigError(
                        f'"ports": a port must be a whole number from 1 to {MOST_PORTS}, not {quoted(port)}'
                    )
            if first > last:
                raise ConfigError(f'"ports": the range {quoted(part.strip())} ends before it begins')
            for port in range(first, last + 1):
                if port in ports:
                    raise ConfigError(f'"ports": {port} is listed twice')
                ports[port] = None
        return list(ports)


def bound(address: str, port: int) -> socket.socket:
    """A socket bound to this port, not listening. Raises `Gone` when somebody else has it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # What a server sets too: without it, a port whose last holder has just closed a connection could not be bound
        # for a minute, and nobody could bind one that we hold for him.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
    except OSError as error:
        one.close()
        where = f"port {port} of {address}"
        if error.errno == errno.EADDRINUSE:
            raise Gone(f"{where} is in use by somebody who did not lease it") from error
        raise type(error)(error.errno, f"{where} cannot be bound: {error.strerror}") from error
    return one


def can_be_bound(address: str, port: int) -> bool:
    """Whether nobody has this port just now."""
    try:
        bound(address, port).close()
    except Gone:
        return False
    return True
