"""Conditions on a status: the same ones in an index and in each statement that is to use it."""


def one_of(*statuses: str) -> str:
    """The condition that a status is one of these.

    Not with IN: of three or more in its list SQLite makes a table, in each index and CHECK, whenever a row is written.
    """
    return "(" + " OR ".join(f"status = '{status}'" for status in statuses) + ")"


LEASE_WANTED = one_of("pending", "acquired", "active")
LEASE_GRANTED = one_of("acquired", "active")
LEASE_MOVING = one_of("acquired", "released", "broken")
RESOURCE_MOVING = one_of("pending", "released", "broken")
