"""What an evaluation concludes: no lead within chance, and the baselines named where they win."""

import pytest

from tracin_func.evaluation.conclusions import conclusions
from tracin_func.evaluation.datamodelling import Datamodelling, Foreseen
from tracin_func.evaluation.evaluate import EvaluationReport
from tracin_func.evaluation.flips import Flips, Found
from tracin_func.evaluation.measures import Interval
from tracin_func.evaluation.methods.registry import chosen
from tracin_func.evaluation.plan import Plan
from tracin_func.evaluation.removal import Dropped, Removal
from tracin_func.training.retrain import Recipe

NONE = Interval(0.5, 0.4, 0.6)


def concluded(
    flips: Flips | None = None, removal: Removal | None = None, found: tuple[Datamodelling, ...] = ()
) -> list[str]:
    methods = chosen(None)
    return conclusions(EvaluationReport(flips, removal, found, methods, Plan(), Recipe(), 0.9, 1, 0, 1.0))


def flips(ours: float, plain: float, ahead: Interval) -> Flips:
    rows = [("tracin", 0.6), ("self", ours), ("loss", plain), ("loss-last", plain - 0.1), ("random", 0.5)]
    found = [Found(name, Interval(value, value - 0.01, value + 0.01), NONE) for name, value in rows]
    return Flips(tuple(found), 10, 100, (0, 1, 2), ahead)


@pytest.mark.parametrize(
    ("ours", "plain", "ahead", "expected"),
    [
        (0.8, 0.9, (-0.1, -0.12, -0.08), "plain loss wins; loss finds them better than self"),
        (0.9, 0.8, (0.1, 0.08, 0.12), "self finds them better than loss"),
        (
            0.9,
            0.89,
            (0.01, -0.01, 0.03),
            "self and loss are tied (AUC +0.010 (-0.010 to +0.030)); plain loss is the cheaper",
        ),
    ],
)
def test_of_flips(ours: float, plain: float, ahead: tuple[float, float, float], expected: str) -> None:
    (sentence,) = concluded(flips(ours, plain, Interval(*ahead)))
    assert expected in sentence


def removal(*rows: tuple[str, float, bool], ahead: tuple[float, float, float] = (0.1, 0.08, 0.12)) -> Removal:
    found = [Dropped(name, 5, NONE, Interval(gain, gain - 0.01, gain + 0.01), helps) for name, gain, helps in rows]
    return Removal(NONE, tuple(found), 10, 50, (0, 1, 2), Interval(*ahead))


def test_of_removal() -> None:
    best = ("oracle", 0.09, True)
    (sentence,) = concluded(None, removal(("tracin", 0.02, False), ("loss", 0.01, False), best))
    assert sentence.startswith("Removal: nothing dropped wins; the best ranking, tracin with 5 pairs dropped, gains")
    (sentence,) = concluded(None, removal(("tracin", 0.03, True), ("loss", 0.01, False), best))
    assert "gains +3.0% (+2.0 to +4.0) pair accuracy, beyond chance for the best of 2." in sentence
    first, second = concluded(
        None, removal(("self", 0.02, True), ("loss", 0.03, True), best, ahead=(-0.1, -0.2, -0.05))
    )
    assert "loss with 5 pairs dropped gains" in first
    assert second == "Removal: plain loss wins; loss does better than self (self -10.0% (-20.0 to -5.0))."
    _, second = concluded(None, removal(("self", 0.03, True), ("loss", 0.03, True), best, ahead=(0.0, -0.1, 0.1)))
    assert second == "Removal: self and loss, which needs no gradients, are tied (+0.0% (-10.0 to +10.0))."


def halves(*rows: tuple[str, Interval, Interval | None]) -> Datamodelling:
    found = tuple(Foreseen(name, (value.value,), value, lead) for name, value, lead in rows)
    return Datamodelling("random halves of the pairs", found, 80, (1000, 1001), (0,), 40, 0.5, 0.9)


def test_of_subsets() -> None:
    random = ("random", Interval(0.0, -0.1, 0.1), Interval(-0.5, -0.6, -0.4))
    (sentence,) = concluded(found=(halves(("tracin", Interval(0.5, 0.4, 0.6), None), random),))
    assert sentence == "Random halves of the pairs: tracin foresees retraining best, LDS 0.50 (0.40 to 0.60)."
    (sentence,) = concluded(found=(halves(("tracin", Interval(0.05, -0.1, 0.2), None), random),))
    assert sentence == "Random halves of the pairs: no score foresees retraining beyond chance (80 subsets)."
    near = ("tracin-last", Interval(0.52, 0.4, 0.6), Interval(0.02, -0.01, 0.05))
    _, second = concluded(found=(halves(("tracin", Interval(0.5, 0.4, 0.6), None), near),))
    assert second == "Random halves of the pairs: its lead over tracin may be chance."
