"""What somebody may ask for who does not mean well, or does not know better."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..attributes import check
from ..errors import ConfigError

#: the file that a shell would make if one of these ever came to one
CANARY = "canary"

TEXTS = (
    "", " ", "-rf", "--help", ".", "..", "../escaped", "../../escaped", "a/../../../escaped", "/", "a/b", "~", "*",
    f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY};", f"| touch {CANARY}", f"&& touch {CANARY}",
    "a'b\"c", "a\nb", "\x1b[2J", "\u202e", "höst", "%s%n", "{0.__class__}", "' OR 1=1 --", "x" * 10_240,
)  # fmt: skip


def _deep(levels: int) -> Any:
    return {"a": _deep(levels - 1)} if levels else "bottom"


VALUES: tuple[Any, ...] = (
    *TEXTS, None, True, False, 0, -1, 2**63 - 1, 1.5, [], ["../escaped"], [[["x"]]], {}, {"../escaped": "-rf"}, _deep(28),
)  # fmt: skip

#: names that a kind may know, or had better not take for a path
NAMES = ("label", "name", "path", "branch", "../escaped", f"$(touch {CANARY})", "-rf", "a\nb")


def attributes(known: Iterable[str], base: Mapping[str, Any], elsewhere: str) -> Iterator[dict[str, Any]]:
    """Requests in which one attribute is hostile: each of `known` with every value, others with a few.

    `elsewhere` is an absolute path that belongs to somebody else.
    """
    known = dict.fromkeys(known)
    for name in known:
        values: tuple[Any, ...] = (*VALUES, elsewhere)
        yield from _reaching({**base, name: value} for value in values)
    for name in NAMES:
        values = ("x", "../escaped", elsewhere, {})
        if name not in known:
            yield from _reaching({**base, name: value} for value in values)


def settings(
    given: Mapping[str, Any], types: Mapping[str, type], elsewhere: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings of which one is hostile, though of the type that was declared; and which one."""
    for name, type in types.items():
        for value in (*VALUES, elsewhere):
            right = isinstance(value, type) and not (isinstance(value, bool) and type is not bool)
            if right:
                yield name, {**given, name: value}
            if type is list:
                yield name, {**given, name: [value]}
            if type is dict:
                yield name, {**given, name: {"x": value}}


def _reaching(requests: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those that Drydock itself does not refuse."""
    for wanted in requests:
        with contextlib.suppress(ConfigError):
            check(wanted, "attributes")
            yield wanted
