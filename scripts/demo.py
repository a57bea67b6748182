"""scripts/demo: each command is shown, run, and checked. It ends with the first that does not do what it should."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

POOL = """\
[blueprint.lab]
kind = "host-pool"
hosts = ["h1", { name = "h2", address = "10.0.0.2", port = 22, attributes = { arch = "arm64" } }]

[blueprint.build]
kind = "almanac-hosts"
services = ["build-pool"]

[almanac.device.build001]
address = "10.0.1.1"

[almanac.service.build-pool]
devices = ["build001"]

[blueprint.scratch]
kind = "scratch-dir"
root = "FOLDER/scratch"
limit = 1
grace = "0s"
"""


class Demo:
    """Runs commands in `folder` as a person there would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DRYDOCK_")}
        self.environment["DRYDOCK_STORE"] = str(folder / "drydock.db")
        columns, lines = shutil.get_terminal_size((110, 24))
        self.environment.update(COLUMNS=str(columns), LINES=str(lines))
        if not sys.stdout.isatty():
            self.environment["TERM"] = "dumb"  # tables are drawn all the same, in one colour

    def type(self, command: str, *says: str, code: int = 0) -> None:
        """Show `command` and what it says; `says` are patterns that must be found there."""
        print(f"$ {command}", flush=True)
        output, ended = self._run(command)
        print(output, end="" if output.endswith("\n") or not output else "\n", flush=True)
        if ended:
            print(f"(exit code {ended})")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
        missing = [pattern for pattern in says if not re.search(pattern, plain)]
        if ended != code or missing:
            wanted = f"exit code {code}" if ended != code else f"to find {', '.join(missing)}"
            sys.exit(f"demo: FAILED: wanted {wanted} from: {command}")

    def _run(self, command: str) -> tuple[str, int]:
        # A terminal of its own, so that the command shows what it shows to a person.
        ours, its = pty.openpty()
        with subprocess.Popen(
            command, shell=True, cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=its, stderr=its,
        ) as process, os.fdopen(ours, "rb", buffering=0) as output:  # fmt: skip
            os.close(its)
            read = b""
            try:
                while some := output.read(4096):
                    read += some
            except OSError:  # how Linux says that the other side was closed
                pass
        return read.decode().replace("\r\n", "\n"), process.returncode


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def tour(demo: Demo) -> None:
    scratch = demo.folder / "scratch"
    scratch.mkdir()
    (scratch / ".drydock-root").touch()
    (demo.folder / "pool.toml").write_text(POOL.replace("FOLDER", str(demo.folder)))

    say("A pool file says what there is: hosts, listed or in an inventory, and folders to build.")
    demo.type("cat pool.toml")
    demo.type("drydock apply --plan pool.toml", "blueprint lab", "blueprint build", "blueprint scratch")
    demo.type("drydock apply pool.toml", "blueprint lab: added", "blueprint build: added", "blueprint scratch: added")

    say("Lease a host that is what you need, two that are any, and an empty folder.")
    demo.type("""drydock lease --type host --attributes '{"arch": "arm64"}'""", r"^lease 1: host h2 from lab")
    demo.type("drydock lease --type host --count 2", r"lease 2: host", r"lease 3: host")
    demo.type("drydock lease --type scratch-dir", r"^lease 4: scratch-dir scratch-0 from scratch")
    demo.type("ls -A scratch", r"scratch-0")

    say("Who holds what, on which resources, and by which slot locks?")
    demo.type("drydock leases", *(rf"(?m)^ *{lease} +active" for lease in (1, 2, 3, 4)))
    demo.type("drydock resources", r"h1", r"h2", r"build001", r"scratch-0")
    demo.type("drydock locks", r"almanac\.host\.binding\(build001\) +resource:\d+")

    say("All hosts are taken now. This would wait its turn; with --no-wait it gives up at once.")
    demo.type("drydock lease --type host --no-wait", r"no free", code=3)

    say("Give all back. The folder of a lease ends with it; what stays idle can be reclaimed.")
    demo.type("drydock release 1 2 3 4", *(f"lease {lease}: released" for lease in (1, 2, 3, 4)))
    demo.type("ls -A scratch", r"^\.drydock-root\s*$")
    demo.type("drydock reclaim", r"scratch-0\): reclaimed")
    demo.type("drydock log --lines 6", r"resource\.reclaimed", r"resource\.destroyed")
    demo.type("drydock doctor", r"all promises hold")

    say("What slot locks are for: two processes want one host at the same moment, without them and with.")
    print("$ scripts/race-demo", flush=True)
    race = [sys.executable, str(Path(__file__).parent / "race_lab")]
    if code := subprocess.run(race).returncode:
        sys.exit(f"demo: FAILED: scripts/race-demo ended with {code}")


def end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="drydock-demo-") as folder:
        tour(Demo(Path(folder)))
    print("\nThat was drydock. Nothing is left of it.")
