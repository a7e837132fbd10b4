"""Verified scores, beside their recomputed values."""

from dataclasses import asdict, dataclass
from typing import Any

from tracin_func.results.names import counted

TOLERANCE = 1e-4  # rounding in float32 stays below 1e-5; errors are far larger
STANDARD_ERRORS = 6.0  # tolerated deviation of an estimate


@dataclass(frozen=True)
class Entry:
    """One verified score: `found` by the run, `expected` from the recomputation, and the `scale` of the difference.

    `test_pair` is None for self-influence. An entry that depends on rounding is `undecided`, and is not compared.
    `standard_error` is that of an estimate from projected gradients.
    """

    pair: str
    test_pair: str | None
    found: float
    expected: float
    scale: float
    undecided: bool
    standard_error: float = 0.0

    @property
    def deviation(self) -> float:
        """|found − expected| / scale; 0 if both are exactly 0, infinite for NaN."""
        difference = abs(self.found - self.expected)
        return difference / self.scale if difference < float("inf") else float("inf")

    def __str__(self) -> str:
        return f"self-influence of {self.pair}" if self.test_pair is None else f"{self.pair} on {self.test_pair}"


@dataclass(frozen=True, repr=False)
class Verification:
    """Verified scores, at least one."""

    entries: tuple[Entry, ...]
    seed: int

    def __repr__(self) -> str:
        return f"Verification({self})"

    @property
    def compared(self) -> list[Entry]:
        """The entries that do not depend on rounding."""
        return [entry for entry in self.entries if not entry.undecided]

    @property
    def zeros(self) -> int:
        """The number of compared scores that are exactly 0 both times: inactive pairs."""
        return sum(entry.found == 0 == entry.expected for entry in self.compared)

    @property
    def worst(self) -> Entry | None:
        """The entry that deviates most; None if none was compared."""
        return max(self.compared, key=lambda entry: entry.deviation, default=None)

    @property
    def tolerance(self) -> float:
        """The allowed deviation: rounding, and for estimates six standard errors, averaged as single ones vary."""
        squares = [(entry.standard_error / entry.scale) ** 2 for entry in self.compared]
        typical: float = (sum(squares) / max(1, len(squares))) ** 0.5
        return TOLERANCE + STANDARD_ERRORS * typical

    @property
    def passed(self) -> bool:
        """Whether scores were compared, and none deviates by more than the tolerance."""
        return self.worst is not None and self.worst.deviation <= self.tolerance

    def __str__(self) -> str:
        """One to three sentences for the user."""
        undecided = len(self.entries) - len(self.compared)
        aside = f" {undecided} not compared: they depend on rounding at a kink of the loss." if undecided else ""
        if self.worst is None:
            return f"Verification FAILED: no score could be compared.{aside} Verify more scores."
        verdict = "passed" if self.passed else "FAILED"
        estimated = ", with six standard errors of the projection" if self.tolerance > TOLERANCE else ""
        zeros = f", {self.zeros} of them exactly 0 both times" if self.zeros else ""
        found = "" if self.passed else f", {self.worst}: {self.worst.found:.6g} instead of {self.worst.expected:.6g}"
        count = counted(len(self.compared), "score")
        return (
            f"Verification {verdict}: {count} recomputed in float64{zeros}; largest relative deviation "
            f"{self.worst.deviation:.1e} (tolerance {self.tolerance:.0e}{estimated}){found}.{aside}"
        )

    def describe(self) -> dict[str, Any]:
        """The verification as a JSON object."""
        entries = [asdict(entry) | {"deviation": entry.deviation} for entry in self.entries]
        return {"passed": self.passed, "tolerance": self.tolerance, "seed": self.seed, "entries": entries}
