"""The pairwise form against SciPy's tests and simulated truth; Hansen's form against a naive twin of its own."""

import importlib.util

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from flataudit.errors import ConfigurationError, PluginError
from flataudit.statistics.model_confidence_set import bootstrap_confidence_set, pairwise_confidence_set

needs_arch = pytest.mark.skipif(
    importlib.util.find_spec("arch") is None, reason="arch is not installed; pip install 'flataudit[mcs]'"
)


def exponential(n: int, extra: list[float], seed: int) -> np.ndarray:
    """Losses that share each example's difficulty."""
    generator = np.random.default_rng(seed)
    return generator.exponential(size=(n, 1)) + generator.exponential(0.5, size=(n, len(extra))) + np.array(extra)


def test_two_candidates_are_one_paired_t_test() -> None:
    losses = exponential(200, [0.0, 0.1], 0)
    p_value = ttest_rel(losses[:, 1], losses[:, 0], alternative="greater").pvalue
    found = pairwise_confidence_set(losses)
    assert found.p_values == pytest.approx([1.0, 2 * p_value])


def test_two_classifiers_are_one_exact_mcnemar_test() -> None:
    wrong = np.array([[1.0, 0.0]] * 25 + [[0.0, 1.0]] * 10 + [[0.0, 0.0]] * 65)
    assert pairwise_confidence_set(wrong).p_values == pytest.approx([binomtest(10, 35).pvalue, 1.0])
    assert pairwise_confidence_set(wrong).members == (1,)


def test_the_order_of_candidates_does_not_matter() -> None:
    losses = exponential(300, [0.0, 0.02, 0.1, 0.3, 0.0], 1)
    order = np.array([3, 0, 4, 2, 1])
    found, moved = pairwise_confidence_set(losses), pairwise_confidence_set(losses[:, order])
    assert moved.p_values == pytest.approx(found.p_values[order], rel=1e-9)
    assert {int(order[i]) for i in moved.members} == set(found.members)
    assert 0 < len(found.members) < 5


def test_less_confidence_keeps_fewer() -> None:
    losses = exponential(300, [0.0, 0.05, 0.08, 0.1], 2)
    sets = [set(pairwise_confidence_set(losses, confidence=c).members) for c in (0.5, 0.9, 0.99)]
    assert sets[0] <= sets[1] <= sets[2]
    assert all(pairwise_confidence_set(losses, confidence=c).p_values.max() == 1.0 for c in (0.5, 0.99))


def test_unknown_differences_exclude_nobody() -> None:
    same = np.random.default_rng(0).random((20, 1))
    assert pairwise_confidence_set(np.hstack([same, same, same + 0.5])).members == (0, 1, 2)
    assert pairwise_confidence_set(np.zeros((20, 3))).members == (0, 1, 2)
    assert pairwise_confidence_set(same).members == (0,)


def test_all_best_are_kept_together() -> None:
    """Five equal best and two worse by 0.4: a best one is lost in at most 5 % of 2,000 worlds."""
    generator, lost, uncorrected, worse = np.random.default_rng(3), 0, 0, 0
    for _ in range(2000):
        losses = generator.exponential(size=(150, 7)) + np.array([0.0] * 5 + [0.4] * 2)
        found = pairwise_confidence_set(losses)
        lost += not {0, 1, 2, 3, 4} <= set(found.members)
        worse += 5 in found.members
        spread = losses[:, :5] - losses[:, losses[:, :5].mean(axis=0).argmin()][:, None]
        error = spread.std(axis=0, ddof=1) / np.sqrt(150)
        uncorrected += bool((spread.mean(axis=0) > 1.645 * error + 1e-12).any())
    assert lost / 2000 <= 0.05
    assert lost > 0 and uncorrected / 2000 > 0.3
    assert worse / 2000 < 0.5


def test_equal_classifiers_are_kept_together() -> None:
    generator, lost = np.random.default_rng(4), 0
    for _ in range(2000):
        wrong = (generator.random((400, 1)) < 0.08) ^ (generator.random((400, 5)) < 0.04)
        lost += len(pairwise_confidence_set(wrong.astype(float)).members) < 5
    assert 0 < lost / 2000 <= 0.05


@needs_arch
@pytest.mark.parametrize("seed", range(4))
def test_both_forms_agree_on_clear_cases(seed: int) -> None:
    losses = exponential(400, [0.0, 0.0, 0.4, 0.5, 0.6], seed)
    pairwise, bootstrap = pairwise_confidence_set(losses), bootstrap_confidence_set(losses, replicates=1000)
    assert pairwise.members == bootstrap.members == (0, 1)
    assert bootstrap.p_values[[2, 3, 4]].max() < 0.01


def naive_hansen(losses: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Hansen, Lunde and Nason's range statistic in loops: eliminate the worst, keep the running maximum of p."""
    generator, (n, k) = np.random.default_rng(seed), losses.shape
    means = losses.mean(axis=0)
    resampled = np.array([losses[generator.integers(0, n, n)].mean(axis=0) for _ in range(replicates)])
    gaps = means[:, None] - means
    centred = resampled[:, :, None] - resampled[:, None, :] - gaps
    error = np.sqrt((centred**2).mean(axis=0)) + np.eye(k)
    left, p_values, running = list(range(k)), np.ones(k), 0.0
    while len(left) > 1:
        at = np.ix_(left, left)
        statistics = np.abs(centred / error)[:, left][:, :, left].max(axis=(1, 2))
        observed = np.abs(gaps / error)[at].max()
        running = max(running, float(np.mean(statistics > observed)))
        worst = left[int((gaps / error)[at].max(axis=1).argmax())]
        p_values[worst] = running
        left.remove(worst)
    return p_values


@needs_arch
def test_hansen_s_p_values_are_those_of_a_naive_twin() -> None:
    losses = exponential(250, [0.0, 0.03, 0.06, 0.1, 0.14], 5)
    found = bootstrap_confidence_set(losses, replicates=3000, seed=1)
    assert found.p_values == pytest.approx(naive_hansen(losses, 3000, 2), abs=0.04)
    assert 0 < found.p_values.min() < 0.5


@needs_arch
def test_hansen_s_form_counts_copies_once_and_repeats_itself() -> None:
    losses = exponential(200, [0.0, 0.1, 0.6], 6)
    with_copies = np.hstack([losses, losses[:, :1], losses[:, 2:]])
    found = bootstrap_confidence_set(with_copies, replicates=500)
    assert found.p_values.tolist() == bootstrap_confidence_set(with_copies, replicates=500).p_values.tolist()
    assert found.p_values[0] == found.p_values[3] == 1.0 and found.p_values[2] == found.p_values[4] < 0.05
    assert bootstrap_confidence_set(losses[:, :1]).members == (0,)


def test_without_arch_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "arch.bootstrap", None)
    with pytest.raises(PluginError, match="flataudit\\[mcs\\]"):
        bootstrap_confidence_set(exponential(50, [0.0, 0.1], 0))


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="n ≥ 2 examples"):
        pairwise_confidence_set(np.zeros((1, 3)))
    with pytest.raises(ConfigurationError, match="finite losses"):
        pairwise_confidence_set(np.array([[1.0, np.nan], [0.0, 1.0]]))
