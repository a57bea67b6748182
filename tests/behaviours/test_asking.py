"""What may be asked for, how it is refused, and what is told meanwhile: S92 S94 S95 S96."""

from pathlib import Path

import pytest

from drydock.cli.show import Progress
from drydock.errors import NotFound
from drydock.waiting import Waiting

from .promises import ALL
from .stage import Stage, on

BAD_REQUESTS = [
    (["--type", "nonsense"], 5, 'no blueprint makes "nonsense"'),
    (["--type", "hoax", "--blueprint", "nobody"], 5, 'no blueprint "nobody"'),
    (["--type", "hoax", "--blueprint", "one", "--blueprint", "one"], 2, 'blueprint "one" is given twice'),
    (["--type", "hoax", "--blueprint", "lab"], 2, 'blueprint "lab" makes "host", not "hoax"'),
    (["--type", "hoax", "--attributes", '{"flavor": '], 2, "--attributes"),
    (["--type", "hoax", "--attributes", '["flavor"]'], 2, "--attributes"),
    (["--type", "hoax", "--attributes", '{"flavor": "durian"}'], 3, "durian"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), BAD_REQUESTS)
def test_what_cannot_be_meant_is_refused_in_one_sentence_and_leaves_no_lease(
    open_air: Stage, arguments: list[str], code: int, says: str
) -> None:
    """S94, S95: at once, each with its own reason, since no retry can help."""
    open_air.offer(one={}, lab={"kind": "host-pool", "hosts": ["h1"]})
    refused = open_air.cli("lease", *arguments)
    assert (refused.returncode, refused.stdout) == (code, "")
    [sentence] = refused.stderr.splitlines()
    assert says in sentence
    assert open_air.store.leases.latest(ALL) == []


def test_what_a_blueprint_refuses_to_plan_for_is_the_requesters_mistake(open_air: Stage, tmp_path: Path) -> None:
    """S94: told as it stands, and not tried again."""
    (tmp_path / ".drydock-root").touch()
    open_air.offer(scratch={"kind": "scratch-dir", "root": str(tmp_path)})
    refused = open_air.cli("lease", "--type", "scratch-dir", "--attributes", '{"label": "../etc"}')
    assert refused.returncode == 2
    assert 'blueprint "scratch": label: name "../etc" is not allowed' in refused.stderr
    assert open_air.store.leases.latest(ALL) == []


def test_attributes_are_attributes_whatever_they_are_called(stage: Stage) -> None:
    """S92: what is asked for cannot overwrite who may serve it."""
    stage.offer(one={}, two={})
    held = stage.lease(blueprint="two", blueprints=["one"], id=7, status="destroyed", resource=1, x=1)
    assert (held.blueprints, on(held).blueprint) == (("two",), "two")
    assert held.attributes == {"blueprints": ["one"], "id": 7, "status": "destroyed", "resource": 1, "x": 1}
    with pytest.raises(NotFound):
        stage.lease(blueprint="nobody", blueprints=["one"])


def test_while_it_waits_a_request_tells_why_once_and_in_plain_text(open_air: Stage) -> None:
    """S96: in order, a line for each change and no more, however long it takes."""
    open_air.offer(lab={"kind": "host-pool", "hosts": ["h1"]})
    first = open_air.lease("host", owner="anna")
    waiting = open_air.cli.start("lease", "--type", "host")
    open_air.pending()
    assert waiting.stderr is not None
    told = [waiting.stderr.readline()]
    open_air.engine.release(first.id)
    out, rest = waiting.communicate(timeout=60)
    told += rest.splitlines(keepends=True)
    assert waiting.returncode == 0
    assert "lease 2" in out
    assert "h1 held by lease 1 (anna)" in told[0]
    assert told[-1] == "give it back with: drydock release 2\n"
    assert len(told) == len(set(told))
    assert all(line.rstrip("\n").isprintable() for line in told)


def test_the_same_reason_is_told_once_and_another_one_again(
    open_air: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """S96: a request looks again every second, and says nothing new while there is nothing new."""
    open_air.offer(lab={"kind": "host-pool", "hosts": ["h1"]})
    reasons: list[Waiting] = []

    def note(news: object) -> None:
        assert isinstance(news, Waiting)
        reasons.append(news)

    first = open_air.lease("host", owner="anna")
    waiting = open_air.leasing("host", progress=note)
    open_air.eventually(lambda: reasons)
    anna = reasons[-1]
    with Progress() as progress:
        for reason in (anna, anna, anna._replace(holders=()), anna):
            progress(reason)
    open_air.engine.release(first.id)
    waiting.result()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[0] == told[2] != told[1]
