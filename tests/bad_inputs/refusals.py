"""What every refusal owes whoever reads it, and how rows are run.

A refusal is exactly one sentence on stderr that names what, which value, and what to do; stdout is empty, the exit
code is the one that the contract says, and the store is as it was.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from conftest import Ran

from drydock.errors import DrydockError

TABLES = ("blueprint", "binding", "resource", "lease", "slot_lock", "event", "source", "shape", "trait")


class Row(NamedTuple):
    """One bad input: its id, what is given, the words that the sentence must have, and the exit code."""

    id: str
    given: Sequence[str]
    words: Sequence[str]
    code: int = 2


def is_safe(text: str) -> bool:
    """Whether no character of it steers a terminal."""
    return all(character.isprintable() or character in "\n\t" for character in text)


def check_sentence(error: DrydockError) -> None:
    """What it says is one sentence that any terminal can show."""
    sentence = str(error)
    assert sentence
    assert is_safe(sentence), ascii(sentence)
    assert "\n" not in sentence
    assert len(sentence) < 1000


def check_refused(done: Ran, words: Sequence[str], code: int) -> None:
    """One clear sentence, nothing on stdout, and this exit code."""
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("drydock: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.endswith("\n")
    assert is_safe(done.stderr), ascii(done.stderr)
    assert len(done.stderr) < 1000
    for word in words:
        assert word in done.stderr, done.stderr


def content(store: Path) -> dict[str, int] | None:
    """How many rows each table has; None when there is no store."""
    if not store.exists():
        return None
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    finally:
        connection.close()
