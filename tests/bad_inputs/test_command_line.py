"""Bad words on the command line, and streams, files, limits and signals that are not as they should be."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli, Ran
from in_process import InProcess

from .refusals import Row, check_refused, content

HUGE = "x" * 10_000_000
CLEAR_SCREEN = "\x1b[2J"
RIGHT_TO_LEFT = "\u202e"

ROWS = [
    Row("CLI-002", ["leas"], ['unknown command "leas"; did you mean "lease"?']),
    Row("CLI-002-nothing-like-it", ["zzz"], ['unknown command "zzz"', "drydock --help"]),
    Row("CLI-002-option", ["leases", "--jsn"], ["--jsn", "did you mean '--json'?"]),
    Row("CLI-003", ["lease"], ["missing --type", 'known types: "host"']),
    Row("CLI-005", ["lease", "-t", "no-such"], ['no blueprint makes "no-such"', 'known types: "host"'], 5),
    Row("CLI-006", ["lease", "-t", "Host"], ['no blueprint makes "Host"; did you mean "host"?'], 5),
    Row("CLI-010-form", ["lease", "-t", "host", "--wait", "1e9s"], ['not a duration: "1e9s"']),
    Row("CLI-010", ["lease", "-t", "host", "--wait", "31d"], ["--wait must be 0s to 30d", '"31d"']),
    *(
        Row(f"CLI-011-{text}", ["lease", "-t", "host", "--wait", text], ["--wait", "not a duration", "write 90s"])
        for text in ("nan", "inf", "1e999", "0x10", "1_000s", "\u0661\u0660s", "", " ", "s", ".5s", "1m30s")
    ),
    Row("CLI-013", ["lease", "-t", "host", "--wait", "5 m"], ['"5 m"', "without spaces"]),
    Row("CLI-014", ["lease", "-t", "host", "--wait", "-1s"], ["--wait must be at least 0s", '"-1s"']),
    Row("CLI-014-both", ["lease", "-t", "host", "--wait", "1s", "--no-wait"], ["--no-wait"]),
    *(
        Row(f"CLI-017-{text}", ["lease", "-t", "host", f"--count={text}"], ["--count must be 1 to 10000", text])
        for text in ("0", "-1", "1.5", "99999999999999999999", "\u0665", "+1", " 1", "1e3")
    ),
    Row("CLI-017-escape", ["lease", "-t", "host", f"--count={CLEAR_SCREEN}"], ["--count", r"\x1b[2J"]),
    Row("CLI-018", ["lease", "-t", "host", "--count", "5"], ['5 x "host"', "can ever hold 4"], 3),
    Row("CLI-019", ["lease", "-t", "host", "--attributes", "k"], ["--attributes: not JSON"]),
    Row("CLI-021", ["lease", "-t", "host", "-a", '{"k":1,"k":2}'], ['"k" is given twice']),
    Row("CLI-022", ["lease", "-t", "host", "-a", "{"], ["--attributes: not JSON", "line 1 column 2"]),
    Row("CLI-023", ["lease", "-t", "host", "-a", "@missing.json"], ["cannot read missing.json: No such file"]),
    Row("CLI-023-empty", ["lease", "-t", "host", "-a", "@"], ["is a directory"]),
    Row("CLI-026", ["lease", "-t", "host", "-a", "@/"], ["/: is a directory"]),
    Row("CLI-026-device", ["lease", "-t", "host", "-a", "@/dev/zero"], ["/dev/zero: not a regular file"]),
    Row("CLI-028-blueprint", ["lease", "-t", "host", "-b", "nope"], ['no blueprint "nope"', "drydock blueprints"], 5),
    Row("CLI-028-twice", ["lease", "-t", "host", "-b", "lab", "-b", "lab"], ['"lab" is given twice']),
    Row("CLI-028-never", ["lease", "-t", "host", "-a", '{"arch": "vax"}'], ["vax", "can ever come from"], 3),
    Row("CLI-029", ["release", "999999"], ["no lease 999999", "drydock leases"], 5),
    Row("CLI-029-resource", ["release-resource", "999999"], ["no resource 999999", "drydock resources"], 5),
    Row("CLI-029-show", ["show", "resource:7"], ["no resource 7"], 5),
    Row("CLI-029-show-blueprint", ["show", "blueprint:nope"], ['no blueprint "nope"'], 5),
    Row("CLI-029-binding", ["disable", "binding:nope"], ['no binding "nope"', "drydock bindings"], 5),
    *(
        Row(f"CLI-030-{text}", ["release", "--", text], ["not a lease id", "drydock leases"])
        for text in ("0", "-1", "1.0", "0x1", "1 ", "9223372036854775808", "1e3", "", "1_0", "\u0661", "lease:", "resource:1")
    ),
    Row("CLI-031", ["release", "../../etc/passwd"], ['not a lease id: "../../etc/passwd"']),
    Row("CLI-031-show", ["show", "nonsense:1"], ['cannot show "nonsense:1"; give lease:N']),
    Row("CLI-031-log", ["log", "blueprint:lab"], ["blueprint:lab", "give lease:N or resource:N"]),
    Row("CLI-031-switch", ["disable", "lab"], ['cannot switch "lab"; give blueprint:NAME or binding:NAME']),
    Row("CLI-032-lines", ["log", "--lines", "0"], ["--lines", "0"]),
    Row("CLI-032-shell", ["completion", "tcsh"], ["'tcsh' is not one of 'bash', 'zsh', 'fish'"]),
    Row("CLI-049", ["--store", "", "leases"], ["the store is empty"]),
    Row("CLI-051", ["--store", "file:x?mode=memory", "leases"], ["a path, not a URI"]),
    Row("CLI-051-memory", ["--store", "/nowhere/:memory:", "leases"], ["no such directory"], 7),
    Row("CLI-054", ["--store", "mysql://x", "leases"], ['unsupported store "mysql://"']),
    Row("CLI-054-nul", ["--store", "a\0b", "leases"], [r"a\x00b", "NUL"]),
    *(
        Row(f"CLI-065-{what}-{ord(bad[0]):x}", [*words, f"{ahead}a{bad}b"], [where, "control character U+"])
        for bad in (CLEAR_SCREEN, "\n", RIGHT_TO_LEFT, "\x7f", "\x9b")
        for what, words, ahead, where in (
            ("type", ["lease", "-t"], "", "type"),
            ("blueprint", ["lease", "-t", "host", "-b"], "", "blueprint"),
            ("owner", ["lease", "-t", "host", "--owner"], "", "owner"),
            ("binding", ["disable"], "binding:", "binding"),
        )
    ),
    Row("CLI-065-command", [f"a{CLEAR_SCREEN}\n"], [r"a\x1b[2J\x0a"]),
    Row("CLI-065-option", [f"--a{CLEAR_SCREEN}"], [r"\x1b[2J"]),
    Row("CLI-065-store", ["--store", f"/nowhere{CLEAR_SCREEN}\n/x", "leases"], [r"\x1b[2J\x0a"], 7),
    Row("CLI-065-file", ["apply", f"no{CLEAR_SCREEN}"], [r"no\x1b[2J"]),
    Row("CLI-065-id", ["release", f"1{CLEAR_SCREEN}"], [r"1\x1b[2J"]),
    Row("CLI-065-not-utf8", ["lease", "-t", "a\udcff"], [r"a\u{dcff}"]),
    Row("CLI-065-homoglyph", ["lease", "-t", "h\u043est"], ["must be ASCII"]),
    Row("CLI-066", ["lease", "-t", HUGE], ["longer than 64 characters"]),
    Row("CLI-066-owner", ["lease", "-t", "host", "--owner", HUGE], ["longer than 255 bytes"]),
    Row("CLI-066-attributes", ["lease", "-t", "host", "-a", HUGE], ["larger than 64 KiB"]),
    Row("CLI-066-id", ["release", HUGE], ["not a lease id"]),
    Row("CLI-066-command", [HUGE], ["unknown command"]),
    Row("CLI-066-store", ["--store", f"/nowhere/{HUGE}", "leases"], ["/nowhere/xxx"], 7),
    Row("CLI-067", ["lease", "--type=--help"], ['type: name "--help" may not start with "-"']),
    Row("CLI-067-owner", ["lease", "-t", "host", "--owner", " "], ["owner may not be empty"]),
    Row("CLI-068-race-lab", ["lease", "-t", "host", "--no-slot-locks"], ["DRYDOCK_RACE_LAB=1"], 9),
    Row("CLI-068-extra", ["leases", "surplus"], ["unexpected extra argument", "drydock leases --help"]),
    Row("CLI-068-missing", ["apply"], ["missing argument", "drydock apply --help"]),
]  # fmt: skip


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("row", ROWS, ids=[ascii(row.id) for row in ROWS])
def test_refused_with_one_sentence(row: Row, drydock: InProcess, path: Path) -> None:
    before = content(path)
    check_refused(drydock(*row.given), row.words, row.code)
    assert content(path) == before


USAGE = [row for row in ROWS if row.code == 2 and row.given[0] != "disable"]


@pytest.mark.parametrize("row", USAGE, ids=[ascii(row.id) for row in USAGE])
def test_bad_usage_makes_no_store(row: Row, drydock: InProcess, path: Path) -> None:
    """What can be seen to be wrong without a store is refused before one is made."""
    drydock(*row.given)
    assert list(path.parent.iterdir()) == []


def test_drydock_alone_shows_the_short_help_on_stderr(cli: Cli) -> None:
    """CLI-001."""
    done = cli()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: drydock ")
    assert "lease" in done.stderr


@pytest.mark.usefixtures("pool")
def test_a_number_alone_is_seconds(drydock: InProcess) -> None:
    """CLI-009."""
    assert drydock("lease", "-t", "host", "--wait", "10").returncode == 0


@pytest.mark.usefixtures("pool")
def test_nothing_free_says_who_holds_it(drydock: InProcess, path: Path) -> None:
    """CLI-015."""
    assert drydock("lease", "-t", "host", "--count", "4", "--json").returncode == 0
    before = content(path)
    for how in (["--no-wait"], ["--wait", "0s"]):
        check_refused(drydock("lease", "-t", "host", *how), ['no free "host"', "4 in use", 'lease 1 of "tester"'], 3)
    after = content(path)
    assert before is not None
    assert after is not None
    assert {table: after[table] for table in ("resource", "slot_lock")} == {
        table: before[table] for table in ("resource", "slot_lock")
    }
    assert [json.loads(line)["id"] for line in drydock("leases", "--json").stdout.splitlines()] == [1, 2, 3, 4]


@pytest.mark.usefixtures("pool")
def test_release_twice_is_a_note_and_no_error(drydock: InProcess) -> None:
    """CLI-033."""
    drydock("lease", "-t", "host")
    assert drydock("release", "1").returncode == 0
    again = drydock("release", "1")
    assert (again.returncode, again.stdout) == (0, "")
    assert "lease 1 was released already, at 20" in again.stderr


def test_a_store_named_in_two_ways_is_one_store(cli: Cli, pool: Path, tmp_path: Path) -> None:
    """CLI-050."""
    (tmp_path / "sub").mkdir()
    strange = str(tmp_path / "sub" / ".." / "x.db")
    assert cli("--store", strange, "apply", str(pool)).returncode == 0
    assert len(cli("--store", str(tmp_path / "x.db"), "blueprints", "--json").objects) == 2


def test_the_flag_wins_over_the_environment(cli: Cli, pool: Path, tmp_path: Path) -> None:
    """CLI-055."""
    other = tmp_path / "other.db"
    assert cli("apply", str(pool), "--store", str(other), DRYDOCK_STORE=str(tmp_path / "unused.db")).returncode == 0
    assert other.exists()
    assert not (tmp_path / "unused.db").exists()
    assert str(other) in cli("doctor", "--store", str(other)).stdout


# ---- streams


def shell(cli: Cli, script: str, **environment: str) -> Ran:
    """Run a line of shell in which `drydock` is the command."""
    line = f'drydock() {{ "{sys.executable}" -c "from drydock.cli import main; main()" "$@"; }}; {script}'
    done = subprocess.run(
        ["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        env={**cli.environment, **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return Ran(done.args, done.returncode, done.stdout, done.stderr)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(
    "verb", ["bindings", "bindings --json", "log", "show blueprint:lab", "completion bash", "doctor"]
)
def test_a_full_or_closed_output_is_told(verb: str, cli: Cli) -> None:
    """CLI-057, CLI-059."""
    check_refused(shell(cli, f"drydock {verb} > /dev/full"), ["cannot write output: No space left on device"], 74)
    check_refused(shell(cli, f"drydock {verb} >&-"), ["cannot write output"], 74)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("form", ["", "--json", "--json --count 2"])
@pytest.mark.parametrize("where", ["> /dev/full", ">&-"])
def test_a_lease_that_cannot_be_told_is_not_kept(form: str, where: str, cli: Cli) -> None:
    """Nobody knows its id, so nobody would ever give it back."""
    done = shell(cli, f"drydock lease -t host {form} {where}")
    assert done.returncode == 74
    assert "cannot write output" in done.stderr
    assert cli("leases", "--json").objects == []
    reasons = [event["data"].get("reason") for event in cli("log", "--event", "lease.released", "--json").objects]
    assert reasons
    assert set(reasons) == {"its requester could not be told"}


def test_all_streams_closed_harm_no_file(cli: Cli, pool: Path) -> None:
    """The store's files do not get the numbers of closed streams, where a stray message would be written into them."""
    shell(cli, "drydock lease -t host <&- >&- 2>&-")
    shell(cli, "drydock nonsense <&- >&- 2>&-")
    shell(cli, f"drydock apply {pool} <&- >&- 2>&-")
    assert cli("doctor").returncode == 0


@pytest.mark.parametrize("verb", ["bindings", "bindings --json"])
def test_a_reader_that_leaves_ends_the_command_quietly(verb: str, cli: Cli, tmp_path: Path) -> None:
    """CLI-058, CLI-062."""
    hosts = ", ".join(f'"host-with-a-long-name-{n}"' for n in range(3000))
    (tmp_path / "many.toml").write_text(f'[blueprint.many]\nkind = "host-pool"\nhosts = [{hosts}]')
    assert cli("apply", str(tmp_path / "many.toml")).returncode == 0
    done = shell(cli, f"drydock {verb} | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.stdout.count("\n") == 1
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.usefixtures("pool")
def test_attributes_from_a_closed_or_odd_stdin(cli: Cli) -> None:
    """CLI-027, ATTR-034."""
    check_refused(shell(cli, "drydock lease -t host -a - <&-"), ["--attributes: empty"], 2)
    check_refused(shell(cli, "drydock lease -t host -a - </dev/null"), ["--attributes: empty"], 2)
    check_refused(shell(cli, r"printf '{\xff}' | drydock lease -t host -a -"), ["--attributes: not UTF-8 at byte 1"], 2)
    endless = shell(cli, "yes | drydock lease -t host -a -; exit ${PIPESTATUS[1]}")
    check_refused(endless, ["--attributes: larger than 64 KiB"], 2)
    assert shell(cli, """printf '\\xef\\xbb\\xbf{"arch": "arm64"}' | drydock lease -t host -a -""").returncode == 0


@pytest.mark.usefixtures("pool")
def test_an_attributes_pipe_without_a_writer_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    """CLI-025."""
    os.mkfifo(tmp_path / "fifo")
    check_refused(cli("lease", "-t", "host", "-a", f"@{tmp_path}/fifo"), ["fifo: not a regular file"], 2)


# ---- surroundings


@pytest.mark.usefixtures("pool")
def test_an_unknown_time_zone_is_utc(cli: Cli) -> None:
    """CLI-073."""
    odd, utc = cli("log", TZ="Nonsense/Zone"), cli("log", TZ="UTC")
    assert odd.returncode == 0
    assert odd.stdout == utc.stdout


@pytest.mark.usefixtures("pool")
def test_too_few_descriptors_are_told(cli: Cli) -> None:
    """CLI-074."""
    for verb in ("leases", "lease -t host"):
        check_refused(shell(cli, f"ulimit -n 6; drydock {verb}"), ["too many open files", "ulimit -n"], 7)
    assert cli("leases", "--json").objects == []


OUT_OF_MEMORY = """
import resource, sys
from drydock.cli import main
import drydock.cli.objects, drydock.cli.show, drydock.store.sqlite
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 1024 * 1024,) * 2)
main(["bindings", "--json"])
"""


def test_out_of_memory_is_told(cli: Cli, tmp_path: Path) -> None:
    """CLI-075."""
    hosts = ", ".join(f'"host-{n}"' for n in range(30_000))
    (tmp_path / "many.toml").write_text(f'[blueprint.many]\nkind = "host-pool"\nhosts = [{hosts}]')
    assert cli("apply", str(tmp_path / "many.toml")).returncode == 0
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True, env=cli.environment)
    check_refused(Ran(done.args, done.returncode, done.stdout, done.stderr), ["out of memory"], 71)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_that_is_interrupted_leaves_no_lease(number: signal.Signals, code: int, cli: Cli) -> None:
    """CLI-045, CLI-046: also when the signal comes twice."""
    assert cli("lease", "-t", "host", "--count", "4").returncode == 0
    waiting = cli.start("lease", "-t", "host", "--json")
    assert waiting.stderr is not None
    assert "waiting for host" in waiting.stderr.readline()
    waiting.send_signal(number)
    waiting.send_signal(number)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert [lease["id"] for lease in cli("leases", "--json").objects] == [1, 2, 3, 4]
    assert cli("doctor").returncode == 0


def limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_output_beyond_the_file_size_limit(cli: Cli, pool: Path, tmp_path: Path) -> None:
    """A file that may not grow is told as output that cannot be written, not as a death by SIGXFSZ."""
    environment = {name: value for name, value in cli.environment.items() if name != "PYTHONUNBUFFERED"}
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            cli.command("completion", "bash"), stdout=out, stderr=subprocess.PIPE, text=True, env=environment,
            preexec_fn=limited(100),
        )  # fmt: skip
    assert done.returncode == 74
    assert done.stderr == "drydock: cannot write output: File too large\n"
