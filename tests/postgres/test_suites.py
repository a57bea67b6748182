"""The tests of suites that lease, with a store on a server, where processes are told from the dead by their heart."""

from collections.abc import Callable

import pytest
import test_pytest_plugin as suites
from test_pytest_plugin import begin, dock, suite

__all__ = ["begin", "dock", "suite"]


@pytest.fixture
def store_address(new_postgres_store: Callable[[], str]) -> str:
    return new_postgres_store()


test_a_ttl = suites.test_a_ttl_is_renewed_while_its_test_runs
test_without_a_ttl = suites.test_without_a_ttl_there_is_nobody_who_renews
test_why = suites.test_why_it_is_lost_is_told
test_alone = suites.test_tests_of_several_processes_are_never_at_one_thing_at_once
test_killed = suites.test_a_killed_test_process_gives_back_what_it_held
test_interrupted = suites.test_an_interrupted_run_leaves_nothing
