"""A hook takes all the room that there is on the disk of the store.

Run as a program, `python -m faults.disk_filled_by_a_hook FOLDER WHAT`, with a small file system of its own mounted at
FOLDER and WHAT a function of the kind `unruly`; prints one JSON object: what each command came to.
"""

import json
import sys
from pathlib import Path
from typing import Any

from conftest import Cli, Ran
from containment.conftest import KINDS

from drydock.testing.hog import Hog


def outcome(done: Ran) -> tuple[int, str]:
    return done.returncode, done.stderr


def main(folder: Path, what: str) -> dict[str, Any]:
    cli = Cli(str(folder / "drydock.db"))
    cli.environment |= {"DRYDOCK_BLUEPRINTS": str(KINDS), "STORE": str(folder / "drydock.db")}
    unruly = f'kind = "unruly"\nwhat = "{what}"\nnotes = "{folder.parent}"'
    pool = folder.parent / "pool.toml"
    pool.write_text(f'[blueprint.odd]\n{unruly}\n[blueprint.lab]\nkind = "host-pool"\nhosts = ["h1", "h2"]\n')
    cli("apply", str(pool))
    for _ in range(2):
        cli("lease", "--type", "host")
    told: dict[str, Any] = {"thing": outcome(cli("lease", "--type", "thing", "--no-wait"))}
    with Hog(folder / "more"):  # a command that ends gives back the room of its log
        told["others"] = [outcome(cli(*words)) for words in (("verify", "1"), ("release", "1"), ("doctor",))]
        told["more"] = outcome(cli("lease", "--type", "host", "--no-wait"))
    (folder / "much").unlink()
    told["room"] = cli("lease", "--type", "host", "--no-wait").returncode
    told["held"] = sorted(lease["type"] for lease in cli("leases", "--json").objects)
    return told


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1]), sys.argv[2]), sys.stdout)
