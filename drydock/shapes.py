"""Which attributes of a pool's things make a shape, and which only tell single things apart.

A free thing with the right attributes must be found by index, however large the pool. Things with the same shape are
interchangeable for most requests and share one list of free ones, so there must be few shapes: `arch` and `rack` make
shapes, `address` and `serial` would make as many shapes as there are things. The rule: names join the shape in the
order of how few values they have, as long as no more than `MOST_SHAPES` shapes come of it. The other names are
traits, found through an index of their own, which is short since their values are many.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from .attributes import canonical

MOST_SHAPES = 64


def shape_names(things: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The attribute names that belong into the shapes of `things`."""
    columns: dict[str, dict[int, str]] = {}
    for number, attributes in enumerate(things):
        for name, value in attributes.items():
            columns.setdefault(name, {})[number] = canonical(value)
    chosen: set[str] = set()
    groups: dict[int, tuple[str | None, ...]] = {}  # a thing's number to its values so far; absent: none yet
    for name in sorted(columns, key=lambda n: (len(set(columns[n].values())), n)):
        values = columns[name]
        if len(set(values.values())) > MOST_SHAPES:
            break
        split = {
            number: (*groups.get(number, ()), (name, values.get(number))) for number in groups.keys() | values.keys()
        }
        if len(set(split.values())) + 1 > MOST_SHAPES:
            continue
        chosen.add(name)
        groups = split  # type: ignore[assignment]
    return frozenset(chosen)


def split(attributes: Mapping[str, Any], names: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`attributes` as its part in the shape and its traits."""
    shape = {name: value for name, value in attributes.items() if name in names}
    return shape, {name: value for name, value in attributes.items() if name not in names}
