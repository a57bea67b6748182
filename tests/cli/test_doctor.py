"""drydock doctor"""

from pathlib import Path

import pytest
from in_process import InProcess

pytestmark = pytest.mark.usefixtures("path")


def test_all_is_well(lab: InProcess) -> None:
    lab("lease", "-t", "host")
    done = lab("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all promises hold\n")
    findings = lab("doctor", "--json").objects
    assert all(set(finding) >= {"broken", "rule", "sentence"} for finding in findings)
    assert not any(finding["broken"] for finding in findings)
    assert {finding["rule"] for finding in findings} >= {"store", "turnstile", "sqlite"}


def test_it_changes_nothing(lab: InProcess, path: Path) -> None:
    before = path.read_bytes()
    lab("doctor")
    assert path.read_bytes() == before


def test_what_is_worth_knowing_is_no_broken_promise(lab: InProcess, path: Path) -> None:
    path.chmod(0o644)
    done = lab("doctor")
    assert done.returncode == 0
    assert "note    mode: others may read or write the store (mode 0644); to forbid it: chmod 600" in done.stdout
