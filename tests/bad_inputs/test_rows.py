"""Every row of bad inputs that is about plugins has a test with its id, or a reason why our interface has no such moment."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
#: PLUGIN-001 .. PLUGIN-084 as they were collected, without those that the collection left out
ROWS = {number for number in range(1, 85) if number % 4 != 3}
#: rows that were written for hooks which hand the allocator a resource or a lease; ours hand it nothing
NO_SUCH_MOMENT = {
    25: "`activate` reports nothing: what it builds was named by the plan, with its slot locks, before it began, and whatever else"
    " it built is `destroy`'s to find by that name, as the kit's `leaves_a_half` shows.",
    32: "A lease is active because `activate_lease` returned: there is nothing that it could leave undone but its own work.",
    33: "The same: no hook makes a lease active, so none can do it twice.",
}


def with_a_test() -> set[int]:
    sources = (file.read_text() for file in TESTS.rglob("test_*.py") if file.name != Path(__file__).name)
    return {int(number) for source in sources for number in re.findall(r"PLUGIN-(\d{3})", source)}


def test_each_row_is_tested_or_has_no_meaning_here() -> None:
    assert not with_a_test() & NO_SUCH_MOMENT.keys()
    assert ROWS - with_a_test() == NO_SUCH_MOMENT.keys()
