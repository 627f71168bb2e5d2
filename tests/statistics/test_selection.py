"""The best of several, without its luck, and who else may be the best; the methods themselves are tested by theirs."""

import numpy as np
import pytest

from flataudit.evidence import Array, AuditProtocol, Candidate, Evidence, Examined, Metric
from flataudit.policy import NonInferiority, Policy
from flataudit.statistics.selection import selection

PROTOCOL = AuditProtocol(probes=("p@1",), data={"v": "1"}, seed=0, dtype="f", device="cpu", libraries={})


def candidates(columns: np.ndarray, *, name: str = "validation_accuracy", better: str = "higher") -> list[Examined]:
    found = []
    for version, column in enumerate(columns.T, start=1):
        metric = Metric.model_validate({"name": name, "better": better})
        evidence = Evidence(
            candidate=Candidate(name="m", version=str(version), uri="u"),
            protocol=PROTOCOL,
            measurements=(metric.measured(float(column.mean()), samples=name),),
        )
        found.append(Examined(evidence, {name: Array.pack(np.ascontiguousarray(column, dtype=np.float64))}))
    return found


def test_the_best_of_ten_equal_ones_is_lucky_and_all_may_be_the_best() -> None:
    generator, errors, lucky, whole = np.random.default_rng(0), [], [], 0
    for _ in range(60):
        found = selection(candidates((generator.random((500, 10)) < 0.85).astype(float)), Policy())
        assert found is not None and found.of == 10
        whole += len(found.confidence_set) == 10
        errors.append(found.corrected - 0.85)
        lucky.append(found.observed - 0.85)
    assert whole >= 54
    assert np.mean(lucky) > 0.02 and abs(np.mean(errors)) < 0.5 * np.mean(lucky)


def test_a_clear_winner_keeps_its_number_and_is_alone() -> None:
    generator = np.random.default_rng(1)
    columns = (generator.random((2000, 3)) < [0.7, 0.95, 0.6]).astype(float)
    found = selection(candidates(columns), Policy())
    assert found is not None and (found.best, found.confidence_set) == ("v2", ("v2",))
    assert found.corrected == pytest.approx(columns[:, 1].mean(), abs=2e-3)


def test_lower_is_better_for_a_loss() -> None:
    generator = np.random.default_rng(2)
    columns = generator.exponential(size=(400, 2)) * [1.0, 0.4]
    policy = Policy(non_inferiority=NonInferiority(metric="validation_loss"))
    found = selection(candidates(columns, name="validation_loss", better="lower"), policy)
    assert found is not None and found.best == "v2"
    assert found.interval[0] < found.corrected < found.interval[1]
    assert found.observed == pytest.approx(columns[:, 1].mean())


def test_one_candidate_is_no_choice() -> None:
    assert selection(candidates(np.ones((10, 1))), Policy()) is None


def test_a_winner_without_a_known_error_is_no_reason_to_stop() -> None:
    columns = np.stack([np.full(50, 0.9), np.linspace(0, 1, 50)], axis=1)
    assert selection(candidates(columns), Policy()) is None
    assert selection(candidates(np.array([[1.0, 0.0]])), Policy()) is None
