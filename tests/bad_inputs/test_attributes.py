"""Attributes that are not what they should be, odd ones that are, and the parsers against everything else."""

import json
from typing import Any

import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcess

from drydock.attributes import (
    LARGEST_BYTES,
    canonical,
    check,
    check_name,
    check_text,
    duration,
    fits,
    parse,
    parse_duration,
)
from drydock.cli.app import parse_id
from drydock.errors import ConfigError
from drydock.slots import SlotLock, check_key, checked_locks, dump, load

from .refusals import check_refused, check_sentence, content, is_safe

BAD: list[tuple[str, str, str]] = [
    ("ATTR-001", "", "empty; expected a JSON object"),
    ("ATTR-002", " \t\n ", "empty; expected a JSON object"),
    ("ATTR-003", "arch=arm64", "not JSON"),
    ("ATTR-004", '{"a":1,}', "trailing comma at line 1 column"),
    ("ATTR-004-list", '{"a":[1,]}', "not JSON"),
    ("ATTR-005", "{'a':1}", "keys need double quotes, at line 1 column 2"),
    ("ATTR-006", '{"a":1} {"b":2}', "extra data at line 1 column 9"),
    ("ATTR-008", "[]", "expected an object, got a list"),
    ("ATTR-009", '"x"', "expected an object, got a string"),
    ("ATTR-010", "null", "expected an object, got null"),
    ("ATTR-011", "true", "expected an object, got true or false"),
    ("ATTR-012", "1", "expected an object, got a number"),
    ("ATTR-013", '{"a":1,"a":2}', '"a" is given twice'),
    ("ATTR-013-inside", '{"a":{"b":1,"b":1}}', '"b" is given twice'),
    ("ATTR-014", '{"":1}', "empty key"),
    ("ATTR-014-inside", '{"a":[{"":1}]}', "empty key"),
    ("ATTR-016", '{"a":Infinity}', "Infinity is not JSON"),
    ("ATTR-016-minus", '{"a":-Infinity}', "-Infinity is not JSON"),
    ("ATTR-016-nan", '{"a":NaN}', "NaN is not JSON"),
    ("ATTR-017", '{"a":1e999}', '"a": not a finite number'),
    ("ATTR-020", '{"a":9223372036854775808}', '"a": integer out of range'),
    ("ATTR-021", '{"a":-9223372036854775809}', '"a": integer out of range'),
    ("ATTR-021-digits", '{"a":' + "9" * 5000 + "}", "out of range"),
    ("ATTR-026", '{"a":' + "[" * 30_000, "nested deeper than 32"),
    ("ATTR-026-objects", '{"a":' * 6_000 + "1" + "}" * 6_000, "nested deeper than 32"),
    ("ATTR-026-by-one", '{"a":' + "[" * 32 + "]" * 32 + "}", "nested deeper than 32"),
    ("ATTR-028", json.dumps({"a": "x" * 65_529}), "larger than 64 KiB"),
    ("ATTR-028-spaces", " " * 65_536 + "{}", "larger than 64 KiB"),
    ("ATTR-030", json.dumps({f"k{n}": n for n in range(257)}), "more than 256 keys"),
    ("ATTR-036", r'{"a":"\ud800"}', '"a": contains a lone surrogate'),
    ("ATTR-036-raw", '{"a":"\udcff"}', '"a": contains a lone surrogate'),
    ("ATTR-036-key", r'{"\udfff":1}', "contains a lone surrogate"),
    ("ATTR-037", r'{"a":"\u0000"}', '"a": contains a NUL character'),
    ("ATTR-037-raw", '{"a":"\0"}', "not JSON"),
    ("ATTR-038", r'{"a\u0000b":1}', "a key: contains a NUL character"),
    ("ATTR-052", '{"internal.token":1}', '"internal.token": names that begin with "internal." are reserved'),
    ("ATTR-065-escape", '{"a\x1b[2J":1}', "not JSON"),
    ("ATTR-065-escaped", '{"a\\u001b[2J": 1e999}', r'"a\x1b[2J": not a finite number'),
    ("ATTR-065-bidi", '{"\u202ea": 1e999}', r'"\u{202e}a": not a finite number'),
]

GOOD: list[tuple[str, str, dict[str, Any]]] = [
    ("ATTR-007", "{}", {}),
    ("ATTR-015", r'{"a":null,"b":[true,{"c":[]}]}', {"a": None, "b": [True, {"c": []}]}),
    ("ATTR-018", '{"a":-0.0}', {"a": 0}),
    ("ATTR-019", '{"a":-9223372036854775808,"b":9223372036854775807}', {"a": -(2**63), "b": 2**63 - 1}),
    ("ATTR-022", '{"a":9007199254740993}', {"a": 9007199254740993}),
    ("ATTR-027", '{"a":' + "[" * 30 + "]" * 30 + "}", {"a": json.loads("[" * 30 + "]" * 30)}),
    ("ATTR-031", json.dumps({f"k{n}": n for n in range(256)}), {f"k{n}": n for n in range(256)}),
    ("ATTR-032", json.dumps({"a": "x" * 40_000}), {"a": "x" * 40_000}),
    ("ATTR-033", "\ufeff{}", {}),
    ("ATTR-039", r'{"a":"\ud83d\ude00"}', {"a": "\U0001f600"}),
    ("ATTR-046", '{"__proto__":{"x":1},"constructor":1}', {"__proto__": {"x": 1}, "constructor": 1}),
    ("ATTR-047", '{"internal":1}', {"internal": 1}),
]


@pytest.mark.parametrize(("id", "text", "words"), BAD, ids=[row[0] for row in BAD])
def test_refused(id: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text, "--attributes")
    sentence = str(refused.value)
    assert sentence.startswith("--attributes: ")
    assert words in sentence
    assert is_safe(sentence)
    assert "\n" not in sentence
    assert len(sentence) < 1000


@pytest.mark.parametrize(("id", "text", "meant"), GOOD, ids=[row[0] for row in GOOD])
def test_taken_as_meant(id: str, text: str, meant: dict[str, Any]) -> None:
    assert canonical(parse(text, "--attributes")) == canonical(meant)


OVER_THE_LINE = [row for row in BAD if "\0" not in row[1]]


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(("id", "text", "words"), OVER_THE_LINE, ids=[row[0] for row in OVER_THE_LINE])
def test_a_lease_that_asks_for_it_is_refused(id: str, text: str, words: str, drydock: InProcess, path: Any) -> None:
    before = content(path)
    check_refused(drydock("lease", "-t", "host", "-a", text, "--no-wait"), ["--attributes: ", words], 2)
    assert content(path) == before


@pytest.mark.usefixtures("pool")
def test_a_file_of_attributes_is_read_up_to_the_limit_alone(cli: Cli, tmp_path: Any) -> None:
    """ATTR-029, ATTR-034: a sparse file of 100 GB costs no memory and no time."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100 * 2**30)
    check_refused(cli("lease", "-t", "host", "-a", f"@{tmp_path}/huge"), ["huge: larger than 64 KiB"], 2)
    (tmp_path / "utf16").write_text("{}", encoding="utf-16")
    check_refused(cli("lease", "-t", "host", "-a", f"@{tmp_path}/utf16"), ["utf16: not UTF-8 at byte 0"], 2)


LITERAL = [
    ("ATTR-040", "[/]"),
    ("ATTR-041", "[link=http://x]y[/link]"),
    ("ATTR-042", ":smile:"),
    ("ATTR-044-a", "{{7*7}}"),
    ("ATTR-044-b", "${7*7}"),
    ("ATTR-044-c", "{a.__class__}"),
    ("ATTR-044-d", "%s%n"),
    ("ATTR-045", "=cmd|' /C calc'!A0"),
    ("ATTR-051", "[bold red]x[/bold red]"),
]


@pytest.mark.parametrize(("id", "value"), LITERAL, ids=[row[0] for row in LITERAL])
def test_printed_as_it_is(id: str, value: str, drydock: InProcess, path: Any, tmp_path: Any) -> None:
    """What means something to some printer means nothing to ours."""
    host = f'[blueprint.lab]\nkind = "host-pool"\nhosts = [{{ name = "h1", attributes = {{ note = {json.dumps(value)} }} }}]'
    (tmp_path / "pool.toml").write_text(host)
    assert drydock("apply", str(tmp_path / "pool.toml")).returncode == 0
    told = drydock("lease", "-t", "host", "-a", json.dumps({"note": value}))
    assert told.returncode == 0, told.stderr
    assert f"(note={value})" in told.stdout
    assert f"note={value}" in drydock("resources").stdout
    assert json.loads(drydock("resources", "--json").stdout)["attributes"] == {"note": value}


NO_NAMES = ["", "-x", "a b", "a/b", "../x", "all", "none", "any", "*", "a\n", "\u212a", "a\0", "x" * 65, 3, None, b"x", True, ["a"]]  # fmt: skip


@pytest.mark.parametrize("value", NO_NAMES, ids=ascii)
def test_not_a_name(value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        check_name(value, "type")
    assert str(refused.value).startswith("type: ")


NO_KEYS = ["", "a\0", "a\nb", "x" * 256, "\u00e9" * 128, "e\u0301", "\ud800", "\u202e", 1, None, b"x", [], True]


@pytest.mark.parametrize("value", NO_KEYS, ids=ascii)
def test_not_a_slot_lock_key(value: object) -> None:
    """ATTR-070, ATTR-072, ATTR-073, PLUGIN-077."""
    with pytest.raises(ConfigError, match=r"slot lock key .* is not allowed"):
        check_key(value)


def test_one_spelling_of_an_accent_is_a_key() -> None:
    """ATTR-073."""
    assert check_key("\u00e9") == "\u00e9"


NO_LOCKS: list[Any] = ["x", SlotLock("x"), None, 1, [1], ["x"], [None], [SlotLock("")], [SlotLock("x", -1)], [SlotLock("x", True)],
                       [SlotLock("x", 10**9)], [SlotLock("x", 1.0)], {"x": 1}, b"x", [("x", 0)]]  # type: ignore[arg-type] # fmt: skip


@pytest.mark.parametrize("value", NO_LOCKS, ids=ascii)
def test_not_slot_locks(value: object) -> None:
    """ATTR-069, ATTR-070."""
    with pytest.raises(ConfigError, match="slot lock"):
        checked_locks(value)


def test_a_slot_lock_given_twice_is_one() -> None:
    """ATTR-069."""
    assert checked_locks([SlotLock("x"), SlotLock("x")]) == (SlotLock("x"),)


# ---- everything else there is

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=5)
ANYTHING = JSON | st.binary() | st.complex_numbers() | st.datetimes() | st.sets(st.integers()) | st.tuples(JSON, JSON)
ANY_TEXT = st.text(st.characters(), max_size=300)  # lone surrogates too


@given(ANY_TEXT | ANY_TEXT.map(lambda text: "{" + text) | OBJECTS.map(json.dumps))
def test_parse_gives_attributes_or_a_sentence(text: str) -> None:
    try:
        parsed = parse(text, "--attributes")
    except ConfigError as error:
        check_sentence(error)
    else:
        assert parse(canonical(parsed), "again") == parsed
        assert canonical(parse(canonical(parsed), "again")) == canonical(parsed)


@given(
    ANYTHING | st.dictionaries(ANYTHING.filter(lambda v: v.__hash__ is not None and _hashable(v)), ANYTHING, max_size=3)
)
def test_check_gives_attributes_or_a_sentence(value: object) -> None:
    try:
        checked = check(value, "attributes")
    except ConfigError as error:
        check_sentence(error)
    else:
        assert parse(canonical(checked), "again") == checked


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@given(ANY_TEXT | st.from_regex(r"\A-?[0-9]{1,12}(\.[0-9]{1,8})?(ms|s|m|h|d|w)?\Z"))
def test_a_duration_is_in_its_bounds_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text, "--wait")
    except ConfigError as error:
        check_sentence(error)
    else:
        assert 0 <= seconds <= 30 * 86_400


@given(st.integers(0, 30 * 86_400))
def test_a_duration_is_read_as_it_was_written(seconds: int) -> None:
    assert parse_duration(duration(seconds), "it") == seconds


@given(ANYTHING | ANY_TEXT)
def test_a_name_is_taken_as_it_is_or_refused(value: object) -> None:
    try:
        assert check_name(value, "type") is value
    except ConfigError as error:
        check_sentence(error)
    else:
        assert isinstance(value, str)
        assert value.isascii()
        assert is_safe(value)
        assert not value.startswith("-")


@given(ANYTHING | ANY_TEXT)
def test_a_text_is_taken_as_it_is_or_refused(value: object) -> None:
    try:
        assert check_text(value, "owner") is value
    except ConfigError as error:
        check_sentence(error)
    else:
        assert isinstance(value, str)
        assert value.isprintable()


@given(ANYTHING | ANY_TEXT)
def test_a_key_is_taken_as_it_is_or_refused(value: object) -> None:
    try:
        assert check_key(value) is value
    except ConfigError as error:
        check_sentence(error)
    else:
        assert isinstance(value, str)
        assert 1 <= len(value.encode()) <= 255


@given(ANYTHING | st.lists(st.builds(SlotLock, ANY_TEXT, st.integers(-1, 200_000)) | ANYTHING))
def test_locks_are_sorted_and_kept_or_refused(value: object) -> None:
    try:
        locks = checked_locks(value)
    except ConfigError as error:
        check_sentence(error)
    else:
        assert list(locks) == sorted(set(locks))
        assert load(dump(locks)) == locks


@given(ANY_TEXT | st.integers(-10, 2**65).map(str) | st.integers(0, 2**64).map("lease:{}".format))
def test_an_id_is_a_positive_number_or_refused(text: str) -> None:
    try:
        id = parse_id(text, "lease")
    except ConfigError as error:
        check_sentence(error)
    else:
        assert 1 <= id < 2**63
        assert text.removeprefix("lease:") == str(id)


def same(left: object, right: object) -> bool:
    """The same by value and by type, all the way down."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


FEW = st.sampled_from(["a", "b", "c"])
ALIKE = st.sampled_from([0, 1, 1.0, True, False, None, "1", "", [], {}, [1], [True], {"a": 1}, {"a": 1.0}])


@given(st.dictionaries(FEW, ALIKE), st.dictionaries(FEW, ALIKE))
def test_fits_means_the_same_pairs(have: dict[str, Any], wanted: dict[str, Any]) -> None:
    """ATTR-024, ATTR-025: true is not 1, and 1 is not 1.0."""
    assert fits(have, wanted) == all(name in have and same(have[name], value) for name, value in wanted.items())


@given(OBJECTS)
def test_what_was_checked_fits_itself_and_nothing_less(value: dict[str, Any]) -> None:
    try:
        checked = check(value, "attributes")
    except ConfigError:
        return
    assert fits(checked, checked)
    assert fits(checked, {})
    assert len(canonical(checked)) <= LARGEST_BYTES
    for name in checked:
        assert not fits({k: v for k, v in checked.items() if k != name}, checked)
