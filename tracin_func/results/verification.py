"""What a verification found: scores beside what they should be, and whether they are right."""

from dataclasses import asdict, dataclass
from typing import Any

TOLERANCE = 1e-4  # float32 stays below 1e-5; what is wrong is off by far more
STANDARD_ERRORS = 6.0  # that an estimate may be off


@dataclass(frozen=True)
class Entry:
    """One score again: what was `found` by the run, what is `expected`, and the `scale` of the difference.

    `test_pair` is None for self-influence. An entry that rounding decides is `undecided`, and is not compared.
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
        """|found − expected| / scale; 0 where both are exactly 0, and no less than infinite for NaN."""
        difference = abs(self.found - self.expected)
        return difference / self.scale if difference < float("inf") else float("inf")

    def __str__(self) -> str:
        return f"self-influence of {self.pair}" if self.test_pair is None else f"{self.pair} on {self.test_pair}"


@dataclass(frozen=True, repr=False)
class Verification:
    """Scores again, at least one."""

    entries: tuple[Entry, ...]
    seed: int

    def __repr__(self) -> str:
        return f"Verification({self})"

    @property
    def compared(self) -> list[Entry]:
        """The entries that are decided."""
        return [entry for entry in self.entries if not entry.undecided]

    @property
    def zeros(self) -> int:
        """How many were compared that are exactly 0 both times: inactive pairs, which say little."""
        return sum(entry.found == 0 == entry.expected for entry in self.compared)

    @property
    def worst(self) -> Entry | None:
        """The entry that deviates most; None where none was compared."""
        return max(self.compared, key=lambda entry: entry.deviation, default=None)

    @property
    def tolerance(self) -> float:
        """What may be off: rounding, and of estimates six of their standard errors, averaged as single ones vary."""
        squares = [(entry.standard_error / entry.scale) ** 2 for entry in self.compared]
        typical: float = (sum(squares) / max(1, len(squares))) ** 0.5
        return TOLERANCE + STANDARD_ERRORS * typical

    @property
    def passed(self) -> bool:
        """Whether something was compared, and nothing deviates by more than the tolerance."""
        return self.worst is not None and self.worst.deviation <= self.tolerance

    def __str__(self) -> str:
        """A sentence or three for the user."""
        undecided = len(self.entries) - len(self.compared)
        aside = f" {undecided} not compared: at a kink of the loss, where rounding decides." if undecided else ""
        if self.worst is None:
            return f"Verification FAILED: nothing could be compared.{aside} Verify more scores."
        verdict = "passed" if self.passed else "FAILED"
        estimated = ", of which six standard errors of the projection" if self.tolerance > TOLERANCE else ""
        zeros = f", {self.zeros} of them exactly 0 both times" if self.zeros else ""
        return (
            f"Verification {verdict}: {len(self.compared)} scores again by plain autograd in float64{zeros}. Largest "
            f"deviation {self.worst.deviation:.1e} ({self.worst}: {self.worst.found:.6g}, expected "
            f"{self.worst.expected:.6g}), tolerance {self.tolerance:.0e}{estimated}.{aside}"
        )

    def describe(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        entries = [asdict(entry) | {"deviation": entry.deviation} for entry in self.entries]
        return {"passed": self.passed, "tolerance": self.tolerance, "seed": self.seed, "entries": entries}
