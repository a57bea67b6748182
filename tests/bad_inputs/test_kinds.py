"""Kinds that cannot be imported, do not say what they must, or give back what nobody asked for.

Whatever an author's code does, it is told as the failure of that one kind, and the store is as it was.
"""

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import Cli
from in_process import InProcess

from .refusals import check_refused, content, is_safe

POOL = "from drydock.blueprint import *\nclass Odd(Pool):\n    type = 'thing'\n"
BUILDER = "from drydock.blueprint import *\nclass Odd(Builder):\n    type = 'thing'\n"


def pool(body: str) -> str:
    return POOL + textwrap.indent(body, "    ")


def builder(body: str) -> str:
    return BUILDER + textwrap.indent(body, "    ")


def bindings(result: str) -> str:
    return pool(f"def bindings(self):\n    {result}")


def plans(result: str) -> str:
    return builder(f"def plans(self, wanted):\n    {result}")


#: a thing that fails at whatever it is asked
NASTY = """
class Nasty:
    def no(self, *given): raise RuntimeError("boo")
    __getattribute__ = __bool__ = __len__ = __iter__ = __eq__ = __hash__ = __str__ = __repr__ = no
class Grim(dict):
    def items(self): raise RuntimeError("boo")
"""

GOOD_PLANS = "def plans(self, wanted):\n    yield Plan('p', (slot_lock('p'),))\n"
GOOD_BINDINGS = "def bindings(self):\n    return [Binding('b', slot_lock('b'))]\n"

#: id, the file of the kind, words of the sentence, exit code of `drydock apply`
REFUSED: list[tuple[str, str, Sequence[str], int]] = [
    ("PLUGIN-001", "import no_such_module", ["failed in import", "ModuleNotFoundError: No module named 'no_such_module'"], 6),
    ("PLUGIN-002", "x = (", ["failed in import", "SyntaxError", "odd.py, line 1"], 6),
    ("PLUGIN-003", "raise SystemExit(0)", ["failed in import: SystemExit: 0"], 6),
    ("PLUGIN-003-exit", "import sys; sys.exit()", ["failed in import: SystemExit"], 6),
    ("PLUGIN-003-empty", "", ["must define one Blueprint, and defines 0"], 6),
    ("PLUGIN-007", f"{pool(GOOD_BINDINGS)}\nclass Even(Odd): pass", ["must define one Blueprint, and defines 2"], 6),
    ("PLUGIN-009", "from drydock.blueprint import *\nclass Odd(Blueprint): pass", ["is not a subclass of drydock.blueprint.Pool"], 6),
    ("PLUGIN-010", POOL, ["Odd lacks the method bindings()"], 6),
    ("PLUGIN-010-builder", BUILDER, ["Odd lacks the method plans()"], 6),
    *((f"PLUGIN-011-{line}", builder(GOOD_PLANS + line), ["failed in import: Odd.", "see drydock.blueprint"], 6)
      for line in ("type = 5", "summary = None", "settings_schema = []", "settings_schema = {'x': 'y'}", "source_table = 3",
                   "grace = '3m'", "grace = -1", "grace = float('nan')", "grace = True", "shares_bindings = 'no'",
                   "per_lease = 5", "per_lease = 'ref'", "per_lease = (1,)")),
    *((f"PLUGIN-014-{what}", NASTY + bindings(f"return [{what}]"), ["failed in bindings: RuntimeError: boo"], 6)
      for what in ("Nasty()", "Binding(Nasty(), slot_lock('x'))", "Binding('x', Nasty())", "Binding('x', slot_lock('x'), Nasty())",
                   "Binding('x', slot_lock('x'), Grim(a=1))", "Binding('x', slot_lock('x'), {'a': Nasty()})",
                   "Binding('x', slot_lock('x'), {}, Nasty())", "Binding('x', slot_lock('x'), {}, [Nasty()])")),
    ("PLUGIN-014-answer", NASTY + bindings("return Nasty()"), ["failed in bindings: "], 6),
    *((f"PLUGIN-014-enabled-{what}", NASTY + bindings(f"return [Binding('x', slot_lock('x'), {{}}, (), {what})]"),
       ["failed in bindings: enabled must be True or False, not"], 6) for what in ("'no'", "0", "None", "len")),
    ("PLUGIN-038", "raise RuntimeError('x' * 10_000_000)", ["failed in import: RuntimeError: xxx", "…"], 6),
    ("PLUGIN-038-escape", "raise RuntimeError('\\x1b[2J\\u202e\\n')", [r"RuntimeError: \x1b[2J\u{202e}\x0a"], 6),
    ("PLUGIN-041", "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute", ["<unprintable Mute>"], 6),
    ("PLUGIN-044", "raise GeneratorExit", ["failed in import: GeneratorExit"], 6),
    ("PLUGIN-044-own", "class Own(BaseException): pass\nraise Own('x')", ["failed in import: Own: x"], 6),
    ("PLUGIN-045", "def f(): f()\nf()", ["failed in import: RecursionError"], 6),
    ("PLUGIN-045-memory", "raise MemoryError", ["failed in import: MemoryError"], 6),
    ("PLUGIN-046", "e = None\nfor n in range(1000):\n    f = ValueError(n); f.__cause__ = e; e = f\nraise e", ["ValueError: 999"], 6),
    *((f"PLUGIN-042-{name}", pool(GOOD_BINDINGS + f"def __init__(self, *a): raise {name}"), [f"failed in __init__: {name}"], 6)
      for name in ("ValueError", "SystemExit", "GeneratorExit")),
    ("PLUGIN-047-signature", pool(GOOD_BINDINGS + "def __init__(self): pass"), ["failed in __init__: TypeError"], 6),
    ("PLUGIN-047-check", pool(GOOD_BINDINGS + "def check(self): raise KeyError('x')"), ["failed in check: KeyError"], 6),
    ("PLUGIN-047-config", pool(GOOD_BINDINGS + "def check(self): raise ConfigError('no good')"), ['blueprint "b": no good'], 2),
    ("PLUGIN-047-refused", pool(GOOD_BINDINGS + "def check(self): raise Refused('not yours')"), ['blueprint "b": not yours'], 9),
    ("PLUGIN-047-type", builder(GOOD_PLANS + "type = None"), ['missing "type"', "does not say what it makes"], 2),
    ("PLUGIN-017", bindings("return None"), ["failed in bindings: TypeError"], 6),
    ("PLUGIN-018", bindings("return 'ab'"), ["must give Binding, got str"], 6),
    ("PLUGIN-018-class", bindings("return [Binding]"), ["must give Binding, got type"], 6),
    ("PLUGIN-018-dict", bindings("return [{'name': 'x'}]"), ["must give Binding, got dict"], 6),
    ("PLUGIN-018-endless", bindings("import itertools; return (Binding(f'b{n}', slot_lock(f'{n}')) for n in itertools.count())"), ["more than 100000 bindings"], 2),
    ("PLUGIN-018-twice", bindings("while True: yield Binding('b', slot_lock('b'))"), ['"b" is listed twice'], 2),
    ("PLUGIN-023", bindings("yield Binding('a', slot_lock('a')); 1 / 0"), ["failed in bindings: ZeroDivisionError"], 6),
    *((f"PLUGIN-076-{name}", bindings(f"return [Binding({name}, slot_lock('x'))]"), ["binding", "name"], 2)
      for name in ("'../../x'", "'\\x1b[2J'", "''", "None", "b'x'", "'x' * 65")),
    *((f"PLUGIN-077-{lock}", bindings(f"return [Binding('x', {lock})]"), ["failed in bindings", "slot lock"], 6)
      for lock in ("''", "'x'", "1", "None", "SlotLock('')", "SlotLock('x', -1)", "SlotLock('a\\n')")),
    ("PLUGIN-077-long", bindings("return [Binding('x', slot_lock('x' * 300))]"), ["slot lock key", "use 1 to 255 bytes"], 2),
    ("PLUGIN-077-lease-locks", bindings("return [Binding('x', slot_lock('x'), {}, 'x')]"), ["failed in bindings", "slot locks must be several"], 6),
    ("PLUGIN-079", bindings("return [Binding('x', slot_lock('x'), [1])]"), ["attributes: expected an object, got a list"], 2),
    ("PLUGIN-079-json", bindings("return [Binding('x', slot_lock('x'), {'a': {1}})]"), ["has no place in JSON"], 2),
    ("PLUGIN-079-reserved", bindings("return [Binding('x', slot_lock('x'), {'internal.a': 1})]"), ["are reserved"], 2),
]  # fmt: skip


@pytest.fixture
def offer(tmp_path: Path, drydock: InProcess, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Put the kind "odd" into a folder of drop-ins; returns the words that apply a pool of it."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", str(folder))

    def offer(source: str) -> list[str]:
        (folder / "odd.py").write_text(source)
        (tmp_path / "odd.toml").write_text('[blueprint.b]\nkind = "odd"\n')
        return ["apply", str(tmp_path / "odd.toml")]

    return offer


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(("id", "source", "words", "code"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_kind_that_cannot_be_used(
    id: str,
    source: str,
    words: Sequence[str],
    code: int,
    offer: Callable[[str], list[str]],
    drydock: InProcess,
    path: Path,
) -> None:
    """It is told in one sentence, the others can be used, and --kinds tells it beside them."""
    before = content(path)
    check_refused(drydock(*offer(source)), words, code)
    assert content(path) == before
    assert drydock("lease", "-t", "host").returncode == 0
    kinds = {
        line["kind"]: line for line in map(json.loads, drydock("blueprints", "--kinds", "--json").stdout.splitlines())
    }
    assert kinds["host-pool"]["error"] is None
    if words[0].startswith("failed in import"):
        assert kinds["odd"]["error"]
        assert is_safe(drydock("blueprints", "--kinds").stdout)


#: id, what `plans` does, words of the sentence, exit code of `drydock lease`
BAD_PLANS: list[tuple[str, str, Sequence[str], int]] = [
    ("PLUGIN-013", plans("return None"), ["failed in plans: TypeError"], 6),
    ("PLUGIN-013-number", plans("return 2"), ["failed in plans: TypeError"], 6),
    *((f"PLUGIN-014-{what}", NASTY + plans(f"yield {what}"), ["failed in plans: RuntimeError: boo"], 6)
      for what in ("Nasty()", "Plan(Nasty(), ())", "Plan('p', Nasty())", "Plan('p', [Nasty()])", "Plan('p', (), Nasty())",
                   "Plan('p', (), Grim(a=1))", "Plan('p', (), {'a': Nasty()})", "Plan('p', (), {}, Nasty())",
                   "Plan('p', (), {}, (), Nasty())", "Plan('p', (), {}, (), Need(Nasty()))", "Plan('p', (), {}, (), Need('host', Grim(a=1)))",
                   "Plan('p', (), {}, (), Need('host', {}, [Nasty()]))")),
    *((f"PLUGIN-014-{what}", NASTY + plans(f"yield Plan('p', (), {{}}, (), {what})"), ["failed in plans: "], 6)
      for what in ("Need('host', {}, Nasty())", "Need('host', {}, 5)", "Need('host', {}, (), 5)")),
    ("PLUGIN-014-answer", NASTY + plans("return Nasty()"), ["failed in plans: "], 6),
    ("PLUGIN-015", plans("return []"), ["can ever be built"], 3),
    ("PLUGIN-018-str", plans("return 'ab'"), ["must yield Plan, got str"], 6),
    ("PLUGIN-018-dict", plans("yield {}"), ["must yield Plan, got dict"], 6),
    ("PLUGIN-018-binding", plans("yield Binding('x', slot_lock('x'))"), ["must yield Plan, got Binding"], 6),
    ("PLUGIN-018-class", plans("yield Plan"), ["must yield Plan, got type"], 6),
    ("PLUGIN-019", plans("raise KeyError('x')"), ["failed in plans: KeyError"], 6),
    ("PLUGIN-044-plans", plans("raise GeneratorExit; yield"), ["failed in plans: GeneratorExit"], 6),
    ("PLUGIN-044-exit", plans("raise SystemExit(3); yield"), ["failed in plans: SystemExit: 3"], 6),
    ("PLUGIN-047-config", plans("raise ConfigError('no such flavor'); yield"), ['blueprint "b": no such flavor'], 2),
    *((f"PLUGIN-076-{name}", plans(f"yield Plan({name}, ())"), ["failed in plans", "name"], 6)
      for name in ("'../../x'", "'\\x1b[2J'", "''", "None", "b'x'")),
    *((f"PLUGIN-020-{field}", plans(f"yield Plan('p', (slot_lock('p'),), {field}='vm')"), ["failed in plans: TypeError"], 6)
      for field in ("type", "blueprint", "resource")),
    ("PLUGIN-024", "class Sly(str):\n    __hash__ = lambda self: 0\n" + plans("yield Plan(Sly('all'), ())"), ['the name "all" is reserved'], 6),
    *((f"PLUGIN-082-{limit}", plans(f"yield Plan('p', (slot_lock('p').any_of({limit}),))"), words, code)
      for limit, words, code in (("-1", ["1 to 100000 slots, not -1"], 2), ("0", ["1 to 100000 slots, not 0"], 2),
                                 ("10**12", ["1 to 100000 slots, not 1000000000000"], 2), ("1.5", ["must be made with slot_lock()"], 6),
                                 ("True", ["must be made with slot_lock()"], 6), ("'many'", ["failed in plans: TypeError"], 6))),
    *((f"PLUGIN-077-{locks}", plans(f"yield Plan('x', {locks})"), ["failed in plans", "slot lock"], 6)
      for locks in ("'x'", "None", "1", "[1]", "['']", "[None]", "[b'x']", "SlotLock('x')", "[SlotLock('')]", "[SlotLock('x', 10**9)]")),
    ("PLUGIN-079", plans("yield Plan('x', (), 5)"), ["failed in plans", "expected an object"], 6),
    ("PLUGIN-079-json", plans("yield Plan('x', (), {'a': float('nan')})"), ["failed in plans", "not a finite number"], 6),
]  # fmt: skip


@pytest.mark.parametrize(("id", "source", "words", "code"), BAD_PLANS, ids=[row[0] for row in BAD_PLANS])
def test_plans_that_are_none(
    id: str, source: str, words: Sequence[str], code: int, offer: Callable[[str], list[str]], drydock: InProcess
) -> None:
    """They are told in one sentence, and no lease is left behind."""
    assert drydock(*offer(source)).returncode == 0
    check_refused(drydock("lease", "-t", "thing", "--no-wait"), words, code)
    assert drydock("leases", "--json").stdout == ""
    assert drydock("resources", "--json").stdout == ""
    assert drydock("doctor").returncode == 0


SLY = """
from enum import Enum
from drydock.blueprint import *
class Name(str):
    def __str__(self): return "../../x"
    def __eq__(self, other): return True
    __hash__ = str.__hash__
    def lower(self): return "../../x"
class Colour(str, Enum):
    RED = "red"
class Number(int):
    def __int__(self): return 10**30
class Key(SlotLock):
    @property
    def key(self): return "other"
class Sly({base}):
    asked = 0
    @property
    def name(self):
        self.asked += 1
        return Name("good") if self.asked == 1 else "../../x"
    def _replace(self, **changes): return self
"""
FIELDS = "{Name('label'): Name('a'), 'colour': Colour.RED, 'number': Number(3)}"


@pytest.mark.parametrize(
    ("base", "source"),
    [
        ("Plan", f"{BUILDER}    def plans(self, wanted): yield Sly('x', (Key('lock'),), {FIELDS})"),
        ("Binding", f"{POOL}    def bindings(self): yield Sly('x', Key('lock'), {FIELDS})"),
    ],
)
def test_what_was_checked_is_what_is_kept(
    base: str, source: str, offer: Callable[[str], list[str]], drydock: InProcess
) -> None:
    """PLUGIN-024: each value is asked for once, and then it is a plain one of ours, whatever its class would say next."""
    assert drydock(*offer(SLY.format(base=base) + source)).returncode == 0
    done = drydock("lease", "-t", "thing", "--no-wait", "--json")
    assert done.returncode == 0, done.stderr
    resource = done.objects[0]["resource"]
    assert (resource["name"], resource["attributes"]) == ("good", {"label": "a", "colour": "red", "number": 3})
    assert "lock" in [json.loads(line)["key"] for line in drydock("locks", "--json").stdout.splitlines()]
    assert drydock("doctor").returncode == 0


@pytest.mark.parametrize(("per_lease", "code"), [("()", 6), ("('arch',)", 0)])
def test_a_plan_for_something_else_than_was_asked_for(
    per_lease: str, code: int, offer: Callable[[str], list[str]], drydock: InProcess
) -> None:
    """PLUGIN-020: as far as the plan says so itself; what is about the lease alone is none of the resource's business."""
    source = plans("yield Plan('p', (slot_lock('p'),), {'arch': 'x86'})") + f"\n    per_lease = {per_lease}"
    assert drydock(*offer(source)).returncode == 0
    done = drydock("lease", "-t", "thing", "--no-wait", "--attributes", '{"arch": "arm64"}')
    if code:
        check_refused(done, ['failed in plans: plan "p" has {"arch":"x86"}, and {"arch":"arm64"} was asked for'], code)
        assert drydock("leases", "--json").stdout == ""
        assert drydock("lease", "-t", "thing", "--no-wait").returncode == 0
    assert done.returncode == code


@pytest.mark.usefixtures("pool")
def test_a_plan_for_a_thing_of_another_blueprint(offer: Callable[[str], list[str]], drydock: InProcess) -> None:
    """PLUGIN-021, PLUGIN-022: it names that thing's slot lock. Nobody loses it, leased or idle, and it is never two."""
    assert drydock(*offer(plans("yield Plan('p', (slot_lock('host', 'h1'),))"))).returncode == 0
    held = drydock("lease", "-t", "host", "--no-wait", "--json").objects[0]
    assert held["resource"]["name"] == "h1"
    check_refused(drydock("lease", "-t", "thing", "--no-wait"), ['no free "thing"'], 3)
    assert drydock("verify", str(held["id"])).returncode == 0
    assert drydock("release", str(held["id"])).returncode == 0
    check_refused(drydock("lease", "-t", "thing", "--no-wait"), ['no free "thing"'], 3)
    assert drydock("release-resource", str(held["resource"]["id"])).returncode == 0
    assert drydock("lease", "-t", "thing", "--no-wait").returncode == 0
    others = [drydock("lease", "-t", "host", "--no-wait", "--json") for _ in range(4)]
    assert [one.objects[0]["resource"]["name"] for one in others[:3]] == ["h2", "h3", "old"]
    assert others[3].returncode == 3
    assert 'slot lock "host(h1)" lost, resource:2 holds it' in others[3].stderr
    assert drydock("doctor").returncode == 0


def test_what_a_kind_does_to_a_request_changes_nothing_of_it(
    offer: Callable[[str], list[str]], drydock: InProcess
) -> None:
    """PLUGIN-029: what it was given is a copy, so no lease is on another thing than was asked for."""
    assert (
        drydock(*offer(plans("wanted['a'].clear(); wanted.clear(); yield Plan('p', (slot_lock('p'),))"))).returncode
        == 0
    )
    done = drydock("lease", "-t", "thing", "--no-wait", "--attributes", '{"a": {"b": 1}}', "--json")
    assert done.objects[0]["attributes"] == {"a": {"b": 1}}


def test_plans_without_end_are_asked_for_no_more(offer: Callable[[str], list[str]], drydock: InProcess) -> None:
    """PLUGIN-016: all of them need the same slot lock, which is taken."""
    source = plans("while True: yield Plan('p', (slot_lock('p'),))")
    assert drydock(*offer(source)).returncode == 0
    assert drydock("lease", "-t", "thing", "--no-wait").returncode == 0
    check_refused(drydock("lease", "-t", "thing", "--no-wait"), ['no free "thing"'], 3)


def test_a_slot_lock_asked_for_twice_is_one(offer: Callable[[str], list[str]], drydock: InProcess) -> None:
    """PLUGIN-078."""
    source = plans("yield Plan('p', (slot_lock('p'), slot_lock('p')), {}, (slot_lock('q'), slot_lock('q')))")
    assert drydock(*offer(source)).returncode == 0
    assert drydock("lease", "-t", "thing", "--no-wait").returncode == 0
    assert sorted(json.loads(line)["key"] for line in drydock("locks", "--json").stdout.splitlines()) == [
        "p", "q", "seat(resource:1).slot(0)",
    ]  # fmt: skip


CHATTER = """
print("at import")
from drydock.blueprint import *
class Odd(Builder):
    type = "thing"
    def __init__(self, *given):
        print("in __init__")
        super().__init__(*given)
    def check(self): print("in check")
    def plans(self, wanted):
        print("in plans")
        yield Plan("p", (slot_lock("p"),))
    def activate(self, resource): print("in activate")
    def destroy(self, resource): print("in destroy")
    def activate_lease(self, resource, lease): print("in activate_lease")
    def destroy_lease(self, resource, lease): print("in destroy_lease")
"""


def test_what_a_kind_prints_is_no_output_of_ours(offer: Callable[[str], list[str]], cli: Cli, tmp_path: Path) -> None:
    """PLUGIN-005: stdout is for our answers alone, so the chatter of kinds goes to stderr."""
    words = offer(CHATTER)
    heard = ""
    for verb in (
        words,
        ["blueprints", "--kinds"],
        ["lease", "-t", "thing"],
        ["release", "1"],
        ["release-resource", "1"],
    ):
        done = cli(*verb, "--json", DRYDOCK_BLUEPRINTS=str(tmp_path / "kinds"))
        assert done.returncode == 0, done.stderr
        assert done.objects
        heard += done.stderr
    for place in (
        "at import",
        "in __init__",
        "in check",
        "in plans",
        "in activate",
        "in destroy",
        "in activate_lease",
        "in destroy_lease",
    ):
        assert place in heard


def test_one_name_from_two_places(offer: Callable[[str], list[str]], drydock: InProcess, tmp_path: Path) -> None:
    """PLUGIN-008."""
    words = offer(pool(GOOD_BINDINGS))
    (tmp_path / "kinds" / "odd.py").rename(tmp_path / "kinds" / "host_pool.py")
    places = ['blueprint "host-pool" failed in discovery: two places offer it', "host_pool.py and drydock-allocator"]
    pool_file = tmp_path / "odd.toml"
    pool_file.write_text('[blueprint.b]\nkind = "host-pool"\nhosts = []\n')
    check_refused(drydock(*words), places, 6)
    assert all(place in drydock("blueprints", "--kinds").stdout for place in places)


def test_a_folder_of_kinds_that_is_none(drydock: InProcess, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRYDOCK_BLUEPRINTS", f"/nowhere:/dev/null::{pool}")
    assert drydock("apply", str(pool)).returncode == 0


HOOKS = ("activate", "activate_lease", "destroy", "destroy_lease")


@pytest.mark.parametrize("hook", HOOKS[:2])
@pytest.mark.parametrize(
    "failure", ["ValueError('x' * 10_000)", "SystemExit(0)", "GeneratorExit()", "RecursionError()"]
)
def test_a_hook_that_fails(hook: str, failure: str, offer: Callable[[str], list[str]], drydock: InProcess) -> None:
    """PLUGIN-016, PLUGIN-043: nothing is left, and the reason is kept, cut to a readable length."""
    name = failure.partition("(")[0]
    source = builder(f"{GOOD_PLANS}def {hook}(self, *about): raise {failure}")
    assert drydock(*offer(source)).returncode == 0
    check_refused(drydock("lease", "-t", "thing", "--no-wait"), [f'blueprint "b" failed in {hook}: {name}'], 6)
    assert drydock("leases", "--json").stdout == ""
    assert drydock("doctor").returncode == 0
    events = [json.loads(line) for line in drydock("log", "--json").stdout.splitlines()]
    assert any(name in str(event["data"]) for event in events)
    assert all(len(json.dumps(event)) < 4000 for event in events)
