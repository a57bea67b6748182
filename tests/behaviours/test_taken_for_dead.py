"""A process that no server has heard of for too long is taken for dead, though it is at a hook: what that came to is not
recorded over the claim of whoever has taken it up. (Beyond the scenarios: upstream has no such deaths.)"""

from contextlib import closing

import pytest

from drydock.model import LeaseStatus, ResourceStatus

from .stage import Stage, control


@pytest.mark.parametrize("hook", ["activate", "activate_lease"])
def test_what_was_prepared_late_is_prepared_again(stage: Stage, hook: str) -> None:
    stage.hooks_seen = False  # they run twice here
    stage.offer(hoax={})
    gate = control("hoax").hold(hook)
    asking = stage.leasing()
    gate.reached()
    with closing(stage.open()) as other:
        take_up(stage, other.process)
        gate.open()
        stage.eventually(lambda: control("hoax").count(hook) == 1)
        assert take_up(stage, other.process) == 1, "what it has claimed is as it was"
    assert asking.result().status is LeaseStatus.ACTIVE
    assert control("hoax").count(hook) == 2


@pytest.mark.parametrize("hook", ["destroy_lease", "destroy"])
def test_what_was_torn_down_late_is_not_gone_while_another_is_at_it(stage: Stage, hook: str) -> None:
    stage.hooks_seen = False  # they run twice here
    stage.offer(hoax={})
    held = stage.lease()
    assert held.resource is not None
    gate = control("hoax").hold(hook)
    releasing = stage.actor(lambda engine: engine.release_resource(held.resource.id if held.resource else 0))
    gate.reached()
    with closing(stage.open()) as other:
        take_up(stage, other.process)
        gate.open()
        releasing.end()
        assert stage.resource(held.resource.id).status is ResourceStatus.RELEASED
        assert take_up(stage, other.process) == 1
    stage.engine.tend()
    assert stage.resource(held.resource.id).status is ResourceStatus.DESTROYED
    assert control("hoax").count(hook) == 2


def take_up(stage: Stage, process: str) -> int:
    """Claim all that is claimed; how much that is."""
    with stage.store.write():
        return sum(
            stage.store.change(f"UPDATE {table} SET worker = :process WHERE worker IS NOT NULL", process=process)
            for table in ("lease", "resource")
        )
