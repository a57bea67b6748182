"""The command line without a process of its own, for all that is not about processes: it starts a hundred times faster."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import Ran

from drydock.cli import run


class InProcess:
    """`drydock.cli.run` on one store, called as a command is; `environment` holds for one call."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str, **environment: str) -> Ran:
        self._capsys.readouterr()
        with self._monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = run(list(arguments))
        told = self._capsys.readouterr()
        return Ran(arguments, code, told.out, told.err)


@contextmanager
def in_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, store: str) -> Iterator[InProcess]:
    """The command line on `store`; the signals that a command takes are given back at the end."""
    assert "DRYDOCK_STORE" not in os.environ
    monkeypatch.setenv("DRYDOCK_STORE", store)
    monkeypatch.setenv("DRYDOCK_OWNER", "tester")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield InProcess(capsys, monkeypatch)
    for number, handler in before.items():
        signal.signal(number, handler)
