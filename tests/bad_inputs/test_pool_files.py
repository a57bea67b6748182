"""Pool files that are not what they should be: unreadable, not TOML, or meant by nobody."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Cli, Ran
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcess

from drydock.config import parse_pool
from drydock.errors import ConfigError

from .privileges import UNPRIVILEGED, Enterable
from .refusals import check_refused, check_sentence, content

LAB = '[blueprint.lab]\nkind = "host-pool"\n'
SCRATCH = '[blueprint.scratch]\nkind = "scratch-dir"\n'


def host(**table: object) -> str:
    """A pool of one host that is written as a table."""
    return LAB + "hosts = [{ " + ", ".join(f"{key} = {_toml(value)}" for key, value in table.items()) + " }]"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


#: id, text of the file, words of the sentence, exit code
BAD: list[tuple[str, str | bytes, Sequence[str], int]] = [
    ("POOL-006", "#" * (1024 * 1024 + 1), ["larger than 1024 KiB"], 2),
    ("POOL-007", b"\x80\x81\x82", ["not UTF-8 at byte 0"], 2),
    ("POOL-007-utf16", LAB.encode("utf-16"), ["not UTF-8 at byte 0"], 2),
    ("POOL-007-latin1", (LAB + "# caf\u00e9").encode("latin-1"), ["not UTF-8 at byte"], 2),
    ("POOL-008", "a = 1\n\n\0", ["invalid character U+0000 at line 3"], 2),
    ("POOL-009", "[blueprint.lab", ["not TOML", "end of a table declaration"], 2),
    ("POOL-010", LAB + LAB, ["not TOML", "line 3"], 2),
    ("POOL-010-key", LAB + 'kind = "x"', ["not TOML", "Cannot overwrite a value"], 2),
    ("POOL-011", "a = " + "[" * 5000, ["nested deeper than 32"], 2),
    ("POOL-011-by-one", "a.b = " + "[" * 31 + "]" * 31, ["nested deeper than 32"], 2),
    ("POOL-012-by-one", ".".join(["a"] * 33) + " = 1", ["nested deeper than 32"], 2),
    ("POOL-012-table", "[" + " . ".join(['"a"'] * 100_000) + "]", ["nested deeper than 32"], 2),
    ("POOL-012-inline", "x = {" + ".".join(["'a'"] * 100_000) + " = 1}", ["nested deeper than 32"], 2),
    ("POOL-012", ".".join(["a"] * 100_000) + " = 1", ["nested deeper than 32"], 2),
    ("POOL-017", "blueprint = 1", ['"blueprint" must be a table of tables'], 2),
    ("POOL-018", "[[blueprint]]\nx = 1", ['"blueprint" must be a table of tables'], 2),
    ("POOL-019", "pol = 1", ['unknown key "pol"; did you mean "blueprint"?'], 2),
    ("POOL-019-table", LAB + "hosts = []\n[almanack.device.x]", ['unknown table "almanack"'], 2),
    ("POOL-019-setting", LAB + 'hosts = ["h"]\nhots = 1', ['unknown setting "hots"', '"hosts"'], 2),
    ("POOL-020", "[blueprint.a]", ['blueprint "a": missing "kind"', "drydock blueprints --kinds"], 2),
    ("POOL-020-setting", LAB, ['missing setting "hosts"'], 2),
    ("POOL-021", '[blueprint.a]\nkind = "nope"', ['no kind "nope" is installed', '"host-pool"'], 2),
    ("POOL-022", '[blueprint.a]\nkind = "os:system"', ['kind: name "os:system" is not allowed'], 2),
    ("POOL-022-path", '[blueprint.a]\nkind = "../x"', ['kind: name "../x" is not allowed'], 2),
    ("POOL-023", '[blueprint.a]\nkind = ""', ["kind: a name may not be empty"], 2),
    ("POOL-023-number", "[blueprint.a]\nkind = 3", ['kind: a name must be a string, not "3"'], 2),
    ("POOL-023-list", "[blueprint.a]\nkind = []", ["kind: a name must be a string"], 2),
    ("POOL-024", LAB + "hosts = []\nlimit = 0", ['"limit" must be a whole number from 1 to 100000'], 2),
    ("POOL-025", LAB + "hosts = []\nseats = true", ['"seats" must be a whole number from 1', '"True"'], 2),
    ("POOL-025-word", LAB + 'hosts = []\nseats = "many"', ['"seats" must be a whole number from 1', '"many"'], 2),
    ("POOL-025-float", LAB + "hosts = []\nseats = 1.0", ['"seats" must be a whole number from 1', '"1.0"'], 2),
    ("POOL-026", LAB + "hosts = []\nlimit = 100000000", ['"limit" must be a whole number', '"100000000"'], 2),
    ("POOL-028", LAB + 'hosts = []\ngrace = ""', ['"grace": not a duration'], 2),
    ("POOL-028-number", LAB + "hosts = []\ngrace = 5", ['"grace" must be a duration such as "3m"'], 2),
    ("POOL-028-minus", LAB + 'hosts = []\ngrace = "-1s"', ['"grace" must be at least 0s'], 2),
    ("POOL-029-type", LAB + 'hosts = []\ntype = "port"', ['kind "host-pool" makes "host", not "port"'], 2),
    ("POOL-029-settings", LAB + 'hosts = "h1"', ['"hosts" must be of type list, not "h1"'], 2),
    ("POOL-031", '[blueprint.a]\nkind = "host-pool"\nhosts = []\n[blueprint.A]\nkind = "host-pool"\nhosts = []',
     ['blueprints "a" and "A" differ only by case'], 2),
    ("POOL-031-hosts", LAB + 'hosts = ["a", "A"]', ['"A" and "a" differ only by case'], 2),
    ("POOL-032", '[blueprint."\ufb01le"]\nkind = "host-pool"', ["must be ASCII"], 2),
    ("POOL-033", LAB + 'hosts = ["-oProxyCommand=x"]', ['may not start with "-"'], 2),
    ("POOL-034", '[blueprint.all]\nkind = "host-pool"', ['the name "all" is reserved'], 2),
    ("POOL-034-star", '[blueprint."*"]\nkind = "host-pool"', ['name "*" is not allowed'], 2),
    ("POOL-035", LAB + 'hosts = ["h1", "h2", "h1"]', ['"h1" is listed twice'], 2),
    ("POOL-036", '[blueprint.a]\nkind = "host-pool"\nhosts = ["new"]\n[blueprint.b]\nkind = "host-pool"\nhosts = ["new"]',
     ['"new" is in the pools "a" and "b"'], 2),
    ("POOL-037", LAB + "hosts = [1]", ['host 1: missing "name"'], 2),
    ("POOL-038", LAB + 'hosts = ["a", "b", { address = "10.0.0.1" }]', ['host 3: missing "name"'], 2),
    ("POOL-053-key", host(name="h", adress="10.0.0.1"), ['unknown key "adress"', '"address"'], 2),
    ("POOL-054", 'include = "../x"', ['unknown key "include"'], 2),
    ("POOL-059", LAB + "# \x1b[2J", ["not TOML", r"\x1b"], 2),
    ("POOL-059-name", '[blueprint."a\\u001b[2J"]\nkind = "host-pool"', ["control character U+001B", r"\x1b[2J"], 2),
    ("POOL-060", "a = " + "x" * 100_000, ["not TOML"], 2),
    ("POOL-060-value", LAB + f'hosts = "{"x" * 100_000}"', ['must be of type list, not "xxx'], 2),
    ("POOL-062", LAB + "hosts = [{ name = 'h', attributes = { a = inf } }]", ["not a finite number"], 2),
    ("POOL-062-nan", LAB + "hosts = [{ name = 'h', attributes = { a = nan } }]", ["not a finite number"], 2),
    ("POOL-063", LAB + "hosts = [{ name = 'h', attributes = { a = 1979-05-27 } }]", ['"1979-05-27" has no place in JSON'], 2),
    ("POOL-063-integer", LAB + "hosts = [{ name = 'h', attributes = { a = 9223372036854775808 } }]", ["integer out of range"], 2),
    ("POOL-065", host(name="h", attributes={'"internal.x"': 1}), ['"internal." are reserved'], 2),
    ("POOL-065-attributes", host(name="h", attributes=1), ['"attributes" must be a table, not "1"'], 2),
    ("POOL-066", SCRATCH + 'root = "/"', ['the root "/" is not ours', ".drydock-root"], 9),
    ("POOL-066-missing", SCRATCH + 'root = "/nowhere/at/all"', ['there is no folder "/nowhere/at/all"'], 2),
    ("POOL-066-relative", SCRATCH + 'root = "x"', ['"root" must be an absolute path'], 2),
    ("POOL-069-service", '[blueprint.b]\nkind = "almanac-hosts"\nservices = ["x"]', ['no almanac service "x"'], 2),
    ("POOL-069-device", '[blueprint.b]\nkind = "almanac-hosts"\nservices = []\n[almanac.service.s]\ndevices = ["x"]',
     ['no device "x"'], 2),
    ("POOL-069-list", '[blueprint.b]\nkind = "almanac-hosts"\nservices = []\n[almanac.service.s]\ndevices = "x"',
     ['must be a table with a list "devices"'], 2),
    ("POOL-069-unhashable", '[blueprint.b]\nkind = "almanac-hosts"\nservices = [[]]', ["almanac service"], 2),
    ("POOL-069-unhashable-device", '[blueprint.b]\nkind = "almanac-hosts"\nservices = []\n[almanac.service.s]\ndevices = [{}]',
     ["no device"], 2),
    *((f"ATTR-053-{address!a}", host(name="h", address=address), [f"{words}"], 2) for address, words in (
        ("-oProxyCommand=touch /tmp/p", 'may not start with "-"'), ("", "non-empty string"), (1, "non-empty string"),
        *((bad, "has a forbidden character") for bad in ("a b", "a;id", "a`id`", "a$(id)", "a\nb", "\u00e9", "a/b", "x" * 254)),
    )),
    *((f"ATTR-057-{port!a}", host(name="h", port=port), ["port must be a whole number from 1 to 65535"], 2)
      for port in (0, 65536, -1, "22", 22.0, True)),
]  # fmt: skip


@pytest.mark.parametrize("before", ["no store", "a store"])
@pytest.mark.parametrize(("id", "text", "words", "code"), BAD, ids=[row[0] for row in BAD])
def test_refused_with_one_sentence(
    id: str, text: str | bytes, words: Sequence[str], code: int, before: str,
    drydock: InProcess, path: Path, tmp_path: Path, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if before == "a store":
        request.getfixturevalue("pool")
    file = tmp_path / "bad.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    was = content(path)
    for plan in ([], ["--plan"]):
        check_refused(drydock("apply", str(file), *plan), words, code)
    now = content(path)
    assert now == was or (was is None and now is not None and not any(now.values()))


#: what may stand in a pool file although it looks odd
GOOD = [
    ("POOL-033-names", LAB + 'hosts = ["0", "_", "a.b-c_d", "no", "null"]'),
    ("POOL-058", "\ufeff" + LAB + "hosts = []"),
    ("POOL-059-comment", LAB + "hosts = []  # [red] {x} \u202e"),
    ("POOL-054-variable", host(name="h", attributes={"path": "${HOME}/%s"})),
    ("POOL-057-empty", ""),
    ("POOL-012-text", host(name="h", attributes={"oid": ".".join(["1"] * 100), "note": "a. " * 100})),
    ("POOL-061-crlf", LAB.replace("\n", "\r\n") + "hosts = []\r\n"),
]


@pytest.mark.parametrize(("id", "text"), GOOD, ids=[row[0] for row in GOOD])
def test_taken(id: str, text: str, drydock: InProcess, tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_bytes(text.encode())
    done = drydock("apply", str(tmp_path / "good.toml"))
    assert done.returncode == 0, done.stderr
    assert drydock("doctor").returncode == 0


def test_nothing_is_interpolated(drydock: InProcess, tmp_path: Path) -> None:
    """POOL-054."""
    (tmp_path / "good.toml").write_text(host(name="h", attributes={"path": "${HOME}/%s"}))
    assert drydock("apply", str(tmp_path / "good.toml")).returncode == 0
    told = drydock("lease", "-t", "host", "--json")
    assert json.loads(told.stdout)["resource"]["attributes"] == {"path": "${HOME}/%s"}


# ---- files that are none


def test_not_a_regular_file(cli: Cli, tmp_path: Path) -> None:
    """POOL-002: and none of them is waited for."""
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    for name in (f"{tmp_path}/fifo", f"{tmp_path}/socket", "/dev/null", "/dev/zero"):
        check_refused(cli("apply", name), [f"{name}: not a regular file"], 2)
    check_refused(cli("apply", str(tmp_path)), [f"{tmp_path}: is a directory"], 2)
    check_refused(cli("apply", ""), ["is a directory"], 2)
    listener.close()


def test_not_there(cli: Cli, tmp_path: Path) -> None:
    """POOL-001, POOL-004."""
    (tmp_path / "loop").symlink_to("loop")
    check_refused(cli("apply", str(tmp_path / "loop")), ["Too many levels of symbolic links"], 2)
    check_refused(cli("apply", str(tmp_path / "gone")), ["gone: No such file or directory"], 2)
    check_refused(cli("apply", str(tmp_path / ("x" * 300))), ["File name too long"], 2)
    assert not (tmp_path / "drydock.db").exists()


def test_not_readable(cli: Cli, enterable: Enterable) -> None:
    """POOL-003."""
    file = enterable.folder / "secret.toml"
    file.write_text(LAB)
    file.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, "apply", str(file)],
        capture_output=True,
        text=True,
        env=enterable.environment,
    )
    check_refused(Ran(done.args, done.returncode, done.stdout, done.stderr), ["secret.toml: permission denied"], 9)


def test_a_root_that_is_a_link(drydock: InProcess, tmp_path: Path) -> None:
    """POOL-068."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / ".drydock-root").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "pool.toml").write_text(SCRATCH + f'root = "{tmp_path}/link"')
    check_refused(drydock("apply", str(tmp_path / "pool.toml")), ["must not be a symbolic link"], 9)


def test_more_things_than_a_pool_may_have(drydock: InProcess, tmp_path: Path) -> None:
    """POOL-039."""
    names = ",".join(f'"{n:x}"' for n in range(100_001))
    (tmp_path / "pool.toml").write_text(f"{LAB}hosts=[{names}]")
    check_refused(drydock("apply", str(tmp_path / "pool.toml")), ['"lab": more than 100000 bindings'], 2)


@pytest.mark.usefixtures("pool")
def test_another_kind_under_live_resources(drydock: InProcess, path: Path, tmp_path: Path) -> None:
    """POOL-047."""
    assert drydock("lease", "-t", "host", "-b", "lab").returncode == 0
    (tmp_path / "other.toml").write_text('[blueprint.lab]\nkind = "almanac-hosts"\nservices = []')
    before = content(path)
    words = ['blueprint "lab" has 1 live resources of kind "host-pool"', "drydock disable blueprint:lab"]
    check_refused(drydock("apply", str(tmp_path / "other.toml")), words, 4)
    assert content(path) == before


# ---- everything else there is

NAMES = st.sampled_from(["lab", "Lab", "x", "", "all", "-x", "\x1b", "\ud800", "a b"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(
    st.sampled_from(["kind", "type", "seats", "limit", "grace", "hosts", "x"]),
    VALUES | NAMES | st.just("unlimited"),
    max_size=5,
)
TABLES = st.dictionaries(NAMES, SETTINGS | VALUES, max_size=3)
POOLS = st.dictionaries(st.just("blueprint") | NAMES, TABLES | VALUES, max_size=3)


@given(POOLS | VALUES)
def test_a_pool_is_read_or_refused(data: object) -> None:
    try:
        pool = parse_pool(data, "pool")
    except ConfigError as error:
        check_sentence(error)
    else:
        for blueprint in pool.blueprints:
            assert blueprint.name.isascii()
            assert blueprint.seats is None or 1 <= blueprint.seats <= 100_000
            assert blueprint.limit is None or 1 <= blueprint.limit <= 100_000
            assert blueprint.grace is None or blueprint.grace >= 0
