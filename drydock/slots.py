"""Slot locks as they are written down: a name, and perhaps a number.

Upstream's idea (Phabricator D14118): pick any name, say that it is needed, and the allocation or acquisition commits
only if every name was free. A limit of k is k names, `name.slot(0)` to `name.slot(k-1)`; `any_of(k)` asks for
whichever of them is free, and the store finds it, also when only the last is left.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple
from unicodedata import is_normalized

from .errors import ConfigError, quoted

LONGEST_KEY_BYTES = 255
MOST_SLOTS = 100_000


class SlotLock(NamedTuple):
    """A claim on `key`; with `of` > 0, on any one of `key.slot(0)` .. `key.slot(of - 1)`."""

    key: str
    of: int = 0

    def slot(self, number: int) -> "SlotLock":
        """The claim on one numbered slot of this name."""
        return SlotLock(f"{self.key}.slot({number})")

    def any_of(self, limit: int) -> "SlotLock":
        """The claim on whichever of `limit` numbered slots is free."""
        if not 1 <= limit <= MOST_SLOTS:
            raise ConfigError(f"a slot lock may have 1 to {MOST_SLOTS} slots, not {limit}")
        return SlotLock(self.key, limit)


def slot_lock(name: str, *about: object) -> SlotLock:
    """`slot_lock("board", "usb-3")` is the slot lock `board(usb-3)`; without `about` it is `board`."""
    key = f"{name}({', '.join(str(a) for a in about)})" if about else name
    check_key(key)
    return SlotLock(key)


def check_key(key: object) -> str:
    """`key` if it may be a slot lock's key: 1 to 255 bytes of printable text. Raises `ConfigError` if not."""
    text = str.__str__(key) if isinstance(key, str) else ""  # whatever a subclass would say of it
    if not text or not text.isprintable() or len(text.encode()) > LONGEST_KEY_BYTES:
        raise ConfigError(
            f"slot lock key {quoted(key)} is not allowed: use 1 to {LONGEST_KEY_BYTES} bytes of printable text"
        )
    # Keys are compared byte for byte, so what looks like one name must have one spelling.
    if not is_normalized("NFC", text):
        raise ConfigError(f"slot lock key {quoted(text)} is not allowed: write its accents composed (Unicode NFC)")
    return text


def checked_locks(locks: object) -> tuple[SlotLock, ...]:
    """What an author gave as slot locks, checked and each once. Raises `ConfigError`."""
    if not isinstance(locks, Iterable) or isinstance(locks, str | SlotLock):
        raise ConfigError(f'slot locks must be several SlotLock, such as (slot_lock("x"),), not {quoted(locks)}')
    checked = []
    for lock in locks:
        key, of = lock if isinstance(lock, SlotLock) else ("", -1)
        if type(of) is not int or not 0 <= of <= MOST_SLOTS:
            raise ConfigError(f"a slot lock must be made with slot_lock(), not {quoted(lock)}")
        checked.append(SlotLock(check_key(key), of))
    return tuple(sorted(set(checked)))


def dump(locks: Iterable[SlotLock]) -> str:
    """The claims as JSON, one item each, in sorted order."""
    return json.dumps([[lock.key, lock.of] if lock.of else lock.key for lock in sorted(set(locks))])


@lru_cache(maxsize=1000)
def load(text: str) -> tuple[SlotLock, ...]:
    """The claims that `dump` wrote."""
    if text == "[]":
        return ()
    return tuple(SlotLock(*item) if isinstance(item, list) else SlotLock(item) for item in json.loads(text))
