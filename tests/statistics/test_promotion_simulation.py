"""Whole decisions on simulated truth: how often equal challengers win, worse ones pass, and plans keep their power."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom

from flataudit.decision import Comparison
from flataudit.evidence import AuditProtocol, Candidate, Evidence, Metric
from flataudit.judge import decide
from flataudit.planning import (
    examples_for_difference,
    examples_for_non_inferior_accuracy,
    examples_for_non_inferiority,
    holm,
    power_of_difference,
    power_of_non_inferior_accuracy,
    power_of_non_inferiority,
)
from flataudit.policy import Policy
from flataudit.statistics.non_inferiority import read
from flataudit.statistics.paired import Difference, paired_accuracy, paired_t
from flataudit.statistics.proportions import mcnemar_p_value, mcnemar_power, tango_intervals

N, CHALLENGERS, WORLDS = 2000, 10, 3000
ACCURACY, SCORE = Metric(name="validation_accuracy", better="higher"), Metric(name="score", better="higher")
PROTOCOL = AuditProtocol(probes=(), data={}, seed=0, dtype="float32", device="cpu", libraries={})


def correctness(generator: np.random.Generator, accuracies: list[float], shared: float, worlds: int) -> np.ndarray:
    """``(worlds, N, candidates)``; the examples' difficulty is common to all candidates."""
    common = generator.standard_normal(size=(worlds, N, 1), dtype=np.float32)
    own = generator.standard_normal(size=(worlds, N, len(accuracies)), dtype=np.float32)
    limits = ndtri(np.array(accuracies)).astype(np.float32)
    return np.asarray(np.sqrt(shared) * common + np.sqrt(1 - shared) * own < limits)


def counts(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(worlds, challengers)`` examples gained and lost against the first column."""
    champion, challengers = right[:, :, :1], right[:, :, 1:]
    return (challengers & ~champion).sum(axis=1), (champion & ~challengers).sum(axis=1)


def test_ten_equal_challengers_are_promoted_in_at_most_five_percent() -> None:
    """Accuracy .9, a discordance of about .06, superiority by Tango's interval and Holm over McNemar's tests.

    The judge's α is two-sided, so that 2.5 % are promoted at most; uncorrected it would be 12 %.
    """
    generator = np.random.default_rng(0)
    tables = [counts(correctness(generator, [0.9] * (CHALLENGERS + 1), 0.9, 100)) for _ in range(WORLDS // 100)]
    gained, lost = (np.concatenate(side) for side in zip(*tables, strict=True))
    assert 0.05 < (gained + lost).mean() / N < 0.08
    ahead = tango_intervals(gained, lost, N)[0] > 0
    p_values = mcnemar_p_value(gained, lost)
    adjusted = np.array([[*holm({str(i): float(p) for i, p in enumerate(row)}).values()] for row in np.sort(p_values)])
    assert np.sort(adjusted)[:, 0] == pytest.approx(np.minimum(1, CHALLENGERS * p_values.min(axis=1)))
    uncorrected = float((ahead & (p_values <= 0.05)).any(axis=1).mean())
    corrected = float((ahead & (CHALLENGERS * p_values <= 0.05)).any(axis=1).mean())
    assert 0.10 < uncorrected < 0.14
    assert 0.005 < corrected <= 0.025
    one_sided = binom.sf(gained - 1, gained + lost, 0.5)  # at 5 %: the two figures of decisions.md
    assert float((one_sided <= 0.05).any(axis=1).mean()) == pytest.approx(0.21, abs=0.02)
    assert float((one_sided <= 0.05 / CHALLENGERS).any(axis=1).mean()) == pytest.approx(0.03, abs=0.01)


def evidence(version: int, accuracy: float, score: float) -> Evidence:
    candidate = Candidate(name="m", version=str(version), uri=f"models:/m/{version}", digest=f"sha256:{version}")
    measured = (ACCURACY.measured(accuracy, standard_error=0.007), SCORE.measured(score, standard_error=0.007))
    return Evidence(candidate=candidate, protocol=PROTOCOL, measurements=measured)


def compared(metric: str, challenger: int, found: Difference) -> Comparison:
    return Comparison(metric=metric, champion="v0", challenger=f"v{challenger}", **vars(found))


def promoted(right: np.ndarray, scores: np.ndarray) -> str | None:
    """The judge's answer on ``(N, candidates)`` correctness and per-example score."""
    both = {"validation_accuracy": (right, paired_accuracy), "score": (scores, paired_t)}
    columns = range(right.shape[1])
    pairs = [
        compared(metric, i, method(values[:, 0], values[:, i]))
        for metric, (values, method) in both.items()
        for i in columns[1:]
    ]
    evidences = [evidence(i, float(right[:, i].mean()), float(scores[:, i].mean())) for i in columns]
    return decide(Policy(), evidences, pairs, champion="v0").promoted


def undecided(right: np.ndarray, scores: np.ndarray) -> bool:
    """Whether some p-value is small enough for the judge to look at; Holm multiplies the smallest by ten."""
    p_values = mcnemar_p_value(*(side[0] for side in counts(right[None] > 0)))
    changes = scores[:, 1:] - scores[:, :1]
    statistics = changes.mean(axis=0) / changes.std(axis=0, ddof=1) * np.sqrt(N)
    return bool(CHALLENGERS * p_values.min() <= 0.06 or statistics.max() > 2.7)


def test_the_judge_itself_promotes_no_more_equal_challengers_than_that() -> None:
    """Both ways to win open at once, accuracy and score: 1,000 worlds, the score a mean of five correctnesses."""
    generator, wins = np.random.default_rng(1), 0
    for world in range(1000):
        right = correctness(generator, [0.9] * (CHALLENGERS + 1), 0.9, 1)[0].astype(np.float64)
        scores = (right + 2 * correctness(generator, [0.75] * (CHALLENGERS + 1), 0.8, 4).mean(axis=0)) / 3
        looked_at = undecided(right, scores)
        if looked_at or world < 20:
            won = promoted(right, scores) is not None
            assert looked_at or not won
            wins += won
    assert 0.002 < wins / 1000 <= 0.05


def test_the_judge_promotes_what_is_better() -> None:
    """The same with one challenger 3 points better in accuracy: it wins, and hardly ever another."""
    generator, answers = np.random.default_rng(2), []
    for _ in range(50):
        right = correctness(generator, [0.9] * CHALLENGERS + [0.93], 0.9, 1)[0].astype(np.float64)
        answers.append(promoted(right, right))
    assert answers.count(f"v{CHALLENGERS}") >= 47


def drawn(q: float, difference: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """20,000 tables of gained and lost examples."""
    shares = [(q + difference) / 2, (q - difference) / 2, 1 - q]
    gained, lost, _ = np.random.default_rng(seed).multinomial(n, shares, size=20_000).T
    return gained, lost


@pytest.mark.parametrize("q", [0.03, 0.05, 0.10, 0.20])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02])
def test_non_inferiority_keeps_its_size_at_the_margin_and_its_planned_power(q: float, margin: float) -> None:
    """Nominal size 2.5 % on one side; the power within three points of either plan where its conditions hold."""
    n = examples_for_non_inferior_accuracy(margin, q)
    low, high = tango_intervals(*drawn(q, -margin, n, 3), n)
    assert 0.015 < float(np.mean(low > -margin)) <= 0.03
    assert read((float(low[0]), float(high[0])), margin=margin).non_inferior == bool(low[0] > -margin)
    planned = {n: power_of_non_inferior_accuracy(margin, q, n)}
    if margin <= q / 3:
        m = examples_for_non_inferiority(margin, q)
        planned[m] = power_of_non_inferiority(margin, q, m)
    for examples, power in planned.items():
        passed = float(np.mean(tango_intervals(*drawn(q, 0.0, examples, 4), examples)[0] > -margin))
        assert power == pytest.approx(0.8, abs=0.003)
        assert passed == pytest.approx(power, abs=0.03)


@pytest.mark.parametrize(
    ("q", "challengers", "short"), [(0.02, 1, 0.045), (0.06, 1, 0.03), (0.2, 1, 0.03), (0.06, 10, 0.03)]
)
def test_superiority_has_its_planned_power(q: float, challengers: int, short: float) -> None:
    """As the judge asks: Tango's interval above 0 and McNemar's p-value at or below α/k.

    The closed form promises a little more than the exact test keeps; `mcnemar_power` says what it keeps.
    """
    whole = examples_for_difference(0.01, q, challengers=challengers)
    for n in (whole, whole // 2):
        gained, lost = drawn(q, 0.01, n, 5)
        wins = (tango_intervals(gained, lost, n)[0] > 0) & (challengers * mcnemar_p_value(gained, lost) <= 0.05)
        kept = float(wins.mean())
        assert kept == pytest.approx(mcnemar_power(0.01, q, n, challengers=challengers), abs=0.01)
        promised = power_of_difference(0.01, q, n, challengers=challengers)
        assert kept < promised + 0.01
        assert n < whole or kept > promised - short
