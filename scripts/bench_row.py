"""What every measure gives: one figure, and what it is held against."""

from typing import NamedTuple


class Row(NamedTuple):
    """One figure beside its budget."""

    name: str
    figure: float
    unit: str = "x"
    at_most: float | None = None
    at_least: float | None = None
    detail: str = ""

    @property
    def budget(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def verdict(self) -> str:
        if not self.budget:
            return "info"
        met = (self.at_most is None or self.figure <= self.at_most) and (
            self.at_least is None or self.figure >= self.at_least
        )
        return "met" if met else "missed"
