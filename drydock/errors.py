"""Every error that Drydock raises on purpose, one class for each reaction that a caller may have.

    DrydockError
    ├── ConfigError          a setting, a file, a flag or a name that cannot be meant: correct it
    ├── NotFound             no such lease, resource, blueprint or binding
    ├── NoBlueprint          no blueprint makes this type: apply a pool file first
    ├── NeverPossible        the blueprints there are can never hold what was asked
    ├── Conflict             true now, may change: asking again is sensible
    │   ├── NothingFree      nothing became free in the time given
    │   ├── SlotLockHeld     somebody else holds a slot lock that was needed
    │   ├── StatusChanged    someone was faster
    │   ├── LeaseLost        the lease is not yours any more
    │   └── WrongFence       a larger fence was used there: the lease is not yours any more
    ├── BlueprintError       a blueprint's own code failed; always `from` the author's exception
    ├── Refused              refused for safety or permission
    ├── CommandFailed        a command on a leased thing failed, or could not be started
    ├── Unreachable          there is no way to a leased thing now
    └── StoreError           the store or a file is unavailable
        ├── StoreBusy        another process kept the store for too long
        ├── StoreFull        its disk is full; nothing was changed
        ├── StoreAway        its server went away before anything was changed: the same may be asked again
        ├── StoreMoved       it is frozen, since it was copied to another one: use that
        └── StoreDamaged     not a Drydock store, damaged, or of another version
    Yield                    not an error: a hook's way to say "later"
    Gone                     not an error: a hook's way to say that the thing is not there any more
    Terminated               not an error: a signal asked this process to end

The data are attributes; the sentence is built here from them, so that no caller writes it twice. Values that
came from outside are shown through `quoted`, which no terminal obeys.
"""

from collections.abc import Iterable, Mapping

SHOWN_CHARACTERS = 200
#: what went wrong in a blueprint may name two files
REASON_CHARACTERS = 600


def printable(value: object, most: int = SHOWN_CHARACTERS) -> str:
    """`value` as text that fits a line and cannot steer a terminal: other characters are escaped, what is over `most`
    is cut."""
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - an author's object may fail at anything, and is shown all the same
        text = f"<unprintable {type(value).__name__}>"
    text = escaped(text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def escaped(text: str) -> str:
    """All of `text`, on one line, and unable to steer a terminal."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def quoted(value: object) -> str:
    """`printable`, in double quotes."""
    return f'"{printable(value)}"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{{{code:x}}}"


def listed(values: Iterable[object], *, most: int = 8) -> str:
    """Quoted and joined with commas; beyond `most` only their number is told. "none" when there are none."""
    names = [quoted(v) for v in values]
    if not names:
        return "none"
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


class DrydockError(Exception):
    """The base of all that Drydock raises on purpose. `str()` of it is one sentence for a person."""


class ConfigError(DrydockError):
    """A setting, a file, a flag or a name that cannot be meant."""


class NotFound(DrydockError):
    """There is no such thing. `kind` is "lease", "resource", "blueprint" or "binding"; `id` is what was asked for."""

    def __init__(self, kind: str, id: int | str) -> None:
        self.kind, self.id = kind, id
        shown = id if isinstance(id, int) else quoted(id)
        super().__init__(f"no {kind} {shown}; list them with: drydock {kind}s")


class NoBlueprint(DrydockError):
    """No blueprint makes things of `type`; `known` are the types that some blueprint makes."""

    def __init__(self, type: str, known: Iterable[str]) -> None:
        self.type, self.known = type, sorted(known)
        same = next((k for k in self.known if k.lower() == type.lower()), None)
        hint = (
            f"did you mean {quoted(same)}?"
            if same
            else f"known types: {listed(self.known)}"
            if self.known
            else "there are no blueprints yet; add some with: drydock apply FILE"
        )
        super().__init__(f"no blueprint makes {quoted(type)}; {hint}")


class NeverPossible(DrydockError):
    """The request can never be served by the blueprints there are, whatever is released. `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Conflict(DrydockError):
    """True now, may change: asking again is sensible."""


class NothingFree(Conflict):
    """Nothing became free in time. `reason` says what stood in the way when we stopped."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class SlotLockHeld(Conflict):
    """Slot locks were not free: `held` maps each key to its holder, `lease:12` or `resource:3`."""

    def __init__(self, held: Mapping[str, str]) -> None:
        self.held = dict(held)
        keys = ", ".join(f"{quoted(key)} (held by {holder})" for key, holder in self.held.items())
        super().__init__(f"slot lock not free: {keys}")


class StatusChanged(Conflict):
    """Someone was faster: the `kind` with this `id` was `expected` to have one status and has `actual`."""

    def __init__(self, kind: str, id: int, expected: Iterable[str], actual: str | None) -> None:
        self.kind, self.id, self.expected, self.actual = kind, id, tuple(expected), actual
        super().__init__(f"{kind} {id} is {actual or 'gone'}, not {' or '.join(self.expected)}")


class LeaseLost(Conflict):
    """The lease has ended, or a newer one holds its resource."""

    def __init__(self, id: int, reason: str) -> None:
        self.id, self.reason = id, reason
        super().__init__(f"lease {id} is lost: {reason}")


class WrongFence(Conflict):
    """A later holder was at work on `target` already: it has `seen` a larger fence than `fence`."""

    def __init__(self, target: str, fence: int, seen: int) -> None:
        self.target, self.fence, self.seen = target, fence, seen
        super().__init__(f"fence {fence} is too old for {quoted(target)}, which has seen {seen}; the lease is lost")


class BlueprintError(DrydockError):
    """A blueprint's own code failed in `step`, or a kind could not be loaded."""

    def __init__(self, blueprint: str, step: str, reason: str) -> None:
        self.blueprint, self.step, self.reason = blueprint, step, reason
        super().__init__(f"blueprint {quoted(blueprint)} failed in {step}: {printable(reason, REASON_CHARACTERS)}")


class Refused(DrydockError):
    """Refused for safety or permission."""


class CommandFailed(DrydockError):
    """A command on a thing failed. `code` is its exit code as a shell has it, None if it was ended since it took too long;
    `said` is the end of its stderr. Its arguments are not shown: they may hold secrets."""

    def __init__(self, command: str, where: str, code: int | None, said: str) -> None:
        self.command, self.where, self.code, self.said = command, where, code, said
        how = "" if code is None else f" (exit code {code})"
        super().__init__(f"{quoted(command)} failed {where}{how}: {printable(said, REASON_CHARACTERS)}")


class Unreachable(DrydockError):
    """There is no way to the host at `address` now, or it is not the one that it should be. `reason` is what ssh said."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"cannot reach {quoted(address)}: {printable(reason, REASON_CHARACTERS)}")


class StoreError(DrydockError):
    """The store or a file cannot be used now: missing, unreadable, full, unreachable."""


class StoreBusy(StoreError):
    """Another process kept the store for too long. `waited_seconds` is how long we stood in the queue."""

    def __init__(self, waited_seconds: float, what: str) -> None:
        self.waited_seconds = waited_seconds
        super().__init__(
            f"{what} was busy for {waited_seconds:.1f}s; another drydock or sqlite3 process holds it, or was stopped inside it"
        )


class StoreFull(StoreError):
    """There is no room on the store's disk. Nothing was changed, and what ends something finds room when tried again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the disk of {what} is full; nothing was changed, and releasing still works")


class StoreAway(StoreError):
    """The server of the store cannot be reached, or went away in the middle. Nothing was changed, so whatever was asked
    may be asked again as a whole; Drydock has done so for a while before anybody sees this."""


class StoreMoved(StoreError):
    """The store is frozen, since all of it was copied `to` another one, or was about to be. It can still be read."""

    def __init__(self, what: str, to: str) -> None:
        self.to = to
        super().__init__(
            f"the store {quoted(what)} is frozen, since it moved to {quoted(to)}; use that, as with DRYDOCK_STORE"
            " (or, if the move was given up: drydock copy-store --thaw)"
        )


class StoreDamaged(StoreError):
    """The file is not a Drydock store, is damaged, or belongs to another version of Drydock."""


class Yield(Exception):
    """Raised by a hook to put the work down and be called again after `after` seconds. The status stays as it is."""

    def __init__(self, after: float = 5.0, reason: str = "") -> None:
        self.after, self.reason = after, reason
        super().__init__(reason or f"later, in {after:g}s")


class Gone(Exception):
    """Raised by `observe` when the thing is not there, or not fit, any more: whoever holds it has lost it, and it is
    torn down. `reason` is what its holder and the operator read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Terminated(BaseException):
    """A signal asked the command to end; it unwinds like ^C does, so that nothing is left behind."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(f"ended by signal {number}")
