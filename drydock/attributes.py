"""Names, attributes and durations: what may be said, how it is read, and when two attributes are the same.

Attributes are a JSON object of at most 64 KiB. Two values are the same when their canonical JSON is: `true` is not
`1`, `1.0` is not `1`, and the order of keys does not matter. Everything refused here is refused with one sentence
that names `where` it stood.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Never

from .errors import ConfigError, quoted

LARGEST_BYTES = 64 * 1024
MOST_KEYS = 256
DEEPEST = 32
LONGEST_NAME = 64
LARGEST_INTEGER = 2**63 - 1
#: a name of Drydock's own making begins so, and nobody else's may
RESERVED_PREFIX = "internal."
LONGEST_DURATION_SECONDS = 30 * 86_400.0

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}
_RESERVED_NAMES = {"all", "none", "any"}
_KIND_OF_VALUE = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}


def check_name(value: object, where: str) -> str:
    """`value` if it may name a blueprint, a binding, a device or a type: one plain ASCII word. `where` says what it names."""
    if not isinstance(value, str):
        raise ConfigError(f"{where}: a name must be a string, not {quoted(value)}")
    value = str.__str__(value)  # whatever a subclass would say of it
    if not value:
        raise ConfigError(f"{where}: a name may not be empty")
    if len(value) > LONGEST_NAME:
        raise ConfigError(f"{where}: name {quoted(value[:40])}… is longer than {LONGEST_NAME} characters")
    for character in () if value.isprintable() else value:
        if unicodedata.category(character).startswith("C"):
            raise ConfigError(f"{where}: name {quoted(value)} contains control character U+{ord(character):04X}")
    if not value.isascii():
        raise ConfigError(f"{where}: name {quoted(value)} must be ASCII")
    if value.startswith("-"):
        raise ConfigError(f'{where}: name {quoted(value)} may not start with "-"')
    if not _NAME.fullmatch(value):
        raise ConfigError(
            f'{where}: name {quoted(value)} is not allowed: use letters, digits, ".", "_" and "-", no other first than a letter, digit or "_"'
        )
    if value in _RESERVED_NAMES:
        raise ConfigError(f"{where}: the name {quoted(value)} is reserved")
    return value


def check_text(value: object, where: str, longest: int = 255) -> str:
    """`value` if it is printable text of 1 to `longest` bytes, such as an owner."""
    value = str.__str__(value) if isinstance(value, str) else ""
    if not value.strip():
        raise ConfigError(f"{where} may not be empty")
    for character in () if value.isprintable() else value:
        if not character.isprintable():
            raise ConfigError(f"{where} {quoted(value)} contains control character U+{ord(character):04X}")
    if len(value.encode()) > longest:
        raise ConfigError(f"{where} {quoted(value[:40])}… is longer than {longest} bytes")
    return value


def parse_duration(text: str, where: str, *, least: float = 0.0, most: float = LONGEST_DURATION_SECONDS) -> float:
    """Seconds meant by "90", "1.5s", "250ms", "5m", "2h" or "1d". A bare number is seconds."""
    found = _DURATION.fullmatch(text)
    if not found:
        if text.startswith("-"):
            raise ConfigError(f"{where} must be at least {duration(least)}, not {quoted(text)}")
        raise ConfigError(f"{where}: not a duration: {quoted(text)}; write 90s, 5m, 2h or 1d, without spaces")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if not least <= seconds <= most:
        raise ConfigError(f"{where} must be {duration(least)} to {duration(most)}, not {quoted(text)}")
    return seconds


def duration(seconds: float) -> str:
    """`seconds` as `parse_duration` reads it, in the largest unit that fits."""
    unit = next((u for u in ("d", "h", "m") if seconds and seconds % _SECONDS[u] == 0), "s")
    return f"{seconds / _SECONDS[unit]:.3f}".rstrip("0").rstrip(".") + unit


def parse(text: str, where: str) -> dict[str, Any]:
    """The attributes in the JSON `text`. Raises `ConfigError` with the place of the first mistake."""
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_BYTES:
        raise ConfigError(f"{where}: larger than 64 KiB")
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise ConfigError(f'{where}: empty; expected a JSON object such as {{"arch": "arm64"}}')
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON: {_json_mistake(text, error)}") from error
    except RecursionError:
        raise ConfigError(f"{where}: nested deeper than {DEEPEST}") from None
    except _JsonRefused as refused:
        raise ConfigError(f"{where}: {refused}") from None
    except ValueError:  # an integer of more digits than Python converts
        raise ConfigError(f"{where}: a number is out of range") from None
    return check(value, where)


def check(value: object, where: str) -> dict[str, Any]:
    """`value` as attributes: a new dict, every value JSON, `-0.0` made `0`. Raises `ConfigError` if it cannot be."""
    if type(value) is dict and not value:  # most ask for nothing in particular
        return {}
    if not isinstance(value, Mapping):
        kind = "null" if value is None else _KIND_OF_VALUE.get(type(value), type(value).__name__)
        raise ConfigError(f"{where}: expected an object, got {kind}")
    checked: dict[str, Any] = clean(value, where)
    if len(checked) > MOST_KEYS:
        raise ConfigError(f"{where}: more than {MOST_KEYS} keys")
    for key in checked:
        if key.startswith(RESERVED_PREFIX):
            raise ConfigError(f'{where}: {quoted(key)}: names that begin with "{RESERVED_PREFIX}" are reserved')
    if len(canonical(checked)) > LARGEST_BYTES:
        raise ConfigError(f"{where}: larger than 64 KiB")
    return checked


def clean(value: object, where: str) -> Any:
    """A copy of `value` that holds nothing but JSON, `-0.0` made `0`. Raises `ConfigError` where it cannot be."""
    try:
        return _clean(value, 1)
    except _NotJson as mistake:
        raise ConfigError(f"{where}: {mistake}") from None


def canonical(value: object) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, ASCII only."""
    if not value and isinstance(value, dict | tuple):  # most ask for nothing in particular
        return "{}" if isinstance(value, dict) else "[]"
    return _encode(value)


def fits(have: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `have` has every pair of `wanted`."""
    return all(name in have and canonical(have[name]) == canonical(value) for name, value in wanted.items())


#: made once, since json.dumps with options makes an encoder each time
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class _JsonRefused(Exception):
    """What json lets pass and we do not."""


class _NotJson(Exception):
    """A value that has no place in JSON. It learns where it stood on its way out, which costs the others nothing."""

    def __init__(self, message: str, *keys: str) -> None:
        self.message, self.keys = message, keys
        super().__init__(": ".join([*map(quoted, keys[:3]), message]))


def _refuse_constant(name: str) -> Never:
    raise _JsonRefused(f"{name} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _JsonRefused(f"key {quoted(twice)} is given twice")
    return result


def _json_mistake(text: str, error: json.JSONDecodeError) -> str:
    place = f"line {error.lineno} column {error.colno}"
    at = text[error.pos : error.pos + 1]
    if error.msg.startswith("Extra data"):
        return f"extra data at {place}"
    if error.msg.startswith("Expecting property name") or error.msg.startswith("Illegal trailing comma"):
        if at == "'":
            return f"keys need double quotes, at {place}"
        if text[: error.pos].rstrip().endswith(",") or error.msg.startswith("Illegal"):
            return f"trailing comma at {place}"
    return f"{error.msg[:1].lower()}{error.msg[1:]} at {place}"


def _clean_key(key: object) -> str:
    if not isinstance(key, str):
        raise _NotJson(f"keys must be strings, not {quoted(key)}")
    text = _clean_string(key, "a key: ")
    if not text:
        raise _NotJson("empty key")
    return text


def _clean_string(value: str, where: str = "") -> str:
    text = str.__str__(value)
    if "\0" in text:
        raise _NotJson(f"{where}contains a NUL character")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise _NotJson(f"{where}contains a lone surrogate")
    return text


def _clean(value: object, depth: int) -> Any:
    # What a value is says its type's own method: a subclass may say something else, each time that it is asked.
    if depth > DEEPEST:
        raise _NotJson(f"nested deeper than {DEEPEST}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean_string(value)
    if isinstance(value, int):
        whole = int.__int__(value)
        if not -LARGEST_INTEGER - 1 <= whole <= LARGEST_INTEGER:
            raise _NotJson("integer out of range")
        return whole
    if isinstance(value, float):
        number = float.__float__(value)
        if not math.isfinite(number):
            raise _NotJson("not a finite number, or out of range")
        return number or 0  # so that -0.0 is 0
    if isinstance(value, Mapping):
        return _clean_mapping(value, depth)
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    raise _NotJson(f"{quoted(value)} has no place in JSON")


def _clean_mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    copy = {}
    for given, item in value.items():
        key = _clean_key(given)
        try:
            copy[key] = _clean(item, depth + 1)
        except _NotJson as mistake:
            raise _NotJson(mistake.message, key, *mistake.keys) from None
    return copy
