"""`shape_names`: few shapes whatever the things are, the same ones every time, and nothing that a request needs is lost."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from drydock.attributes import canonical
from drydock.shapes import MOST_SHAPES, shape_names, split

VALUES = st.one_of(
    st.integers(0, 200), st.booleans(), st.sampled_from(["x86_64", "arm64"]), st.lists(st.integers(0, 2))
)
THINGS = st.lists(st.dictionaries(st.sampled_from(["arch", "rack", "ram", "serial", "tag"]), VALUES), max_size=150)


def shapes(things: list[dict[str, Any]]) -> set[str]:
    names = shape_names(things)
    return {canonical(split(thing, names)[0]) for thing in things}


@given(THINGS)
def test_there_are_never_more_shapes_than_are_allowed(things: list[dict[str, Any]]) -> None:
    assert len(shapes(things)) <= MOST_SHAPES


@given(st.integers(1, 5), st.integers(2, 90), st.integers(1, 400), st.randoms())
def test_nor_when_every_attribute_alone_would_be_few(
    columns: int, values: int, number: int, randomness: random.Random
) -> None:
    names = ["a", "b", "c", "d", "e"][:columns]
    things = [
        {name: randomness.randrange(values) for name in names if randomness.random() < 0.9} for _ in range(number)
    ]
    assert len(shapes(things)) <= MOST_SHAPES


@given(THINGS, st.randoms())
def test_the_names_do_not_depend_on_any_order(things: list[dict[str, Any]], randomness: random.Random) -> None:
    turned = [dict(sorted(thing.items(), key=lambda _: randomness.random())) for thing in things]
    randomness.shuffle(turned)
    assert shape_names(turned) == shape_names(things)


@given(THINGS)
def test_shape_and_traits_are_the_whole(things: list[dict[str, Any]]) -> None:
    names = shape_names(things)
    for thing in things:
        shape, traits = split(thing, names)
        assert {**shape, **traits} == thing
        assert shape.keys() <= names
        assert not traits.keys() & names


def test_what_many_things_share_makes_shapes_and_what_tells_them_apart_does_not() -> None:
    things = [{"arch": ["x86_64", "arm64"][n % 2], "rack": n % 7, "serial": n} for n in range(1000)]
    assert shape_names(things) == {"arch", "rack"}
    assert len(shapes(things)) == 14


def test_a_name_that_is_refused_does_not_keep_out_the_next() -> None:
    """c would make 1600 shapes of 40, so it is a trait; d, which comes after it, makes no more."""
    things = [{"a": n % 2, "b": n % 40, "c": n // 40, "d": n % 40} for n in range(1600)]
    assert shape_names(things) == {"a", "b", "d"}
    assert shape_names([{"a": n} for n in range(MOST_SHAPES + 1)]) == frozenset()


def test_things_without_the_attribute_are_a_shape_too() -> None:
    assert shape_names([{}, *({"a": n} for n in range(MOST_SHAPES - 1))]) == {"a"}
    assert shape_names([{}, *({"a": n} for n in range(MOST_SHAPES))]) == frozenset()


def test_of_two_that_do_not_fit_together_the_first_by_name_is_taken() -> None:
    things = [{"b": n % 40, "a": n // 40} for n in range(1600)]
    assert shape_names(things) == {"a"}
    assert shape_names([{"a": t["a"], "b": t["b"]} for t in reversed(things)]) == {"a"}


def test_values_are_told_apart_as_json_does() -> None:
    """`1`, `1.0` and `true` are three values, and the order of keys within one is none."""
    assert len(shapes([{"v": 1}, {"v": 1.0}, {"v": True}])) == 3
    assert len(shapes([{"v": {"a": 1, "b": 2}}, {"v": {"b": 2, "a": 1}}])) == 1


def test_no_things_have_no_shape_names() -> None:
    assert shape_names([]) == frozenset()
    assert shape_names([{}, {}]) == frozenset()
