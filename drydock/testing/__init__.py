"""What tests of Drydock, of its stores and of its kinds are made of."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blueprint_contract import BlueprintContract as BlueprintContract


def __getattr__(name: str) -> Any:
    # The rest of this package does without pytest, which the contracts need.
    if name == "BlueprintContract":
        from .blueprint_contract import BlueprintContract

        return BlueprintContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
