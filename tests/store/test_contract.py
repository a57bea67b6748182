"""What every store must do, with each of ours."""

from drydock.testing.store_contract import StoreContract


class TestStore(StoreContract):
    """On whichever store `store_address` is."""
