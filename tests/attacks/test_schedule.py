"""An attack that cannot cross the ball is refused, since it would report robustness that is not there."""

import numpy as np
import pytest
from scipy.stats import norm

from flataudit.attacks.schedule import FGSM, Schedule
from flataudit.errors import ConfigurationError


def travelling(w: np.ndarray, margins: np.ndarray, *, steps: int, step_size: float) -> float:
    """Robust share of a linear model by sign steps from a uniform start in |z| ≤ 1, without any refusal."""
    z = np.random.default_rng(1).uniform(-1, 1, (len(margins), len(w)))
    for _ in range(steps):
        z = np.clip(z - step_size * np.sign(w), -1, 1)
    return float(np.mean(margins + z @ w > 0))


def test_a_travel_of_a_third_more_than_epsilon_reports_twice_the_robustness():
    """Exact: 2.5 % robust. 40 steps of ε/30 end an average of ε/9 short of the corner and say 5.5 %."""
    w = np.full(200, 1 / 200)  # ε‖w‖₁ = 1
    spread = 1 / 3.26
    margins = (norm.ppf(0.025) * spread + 1) + spread * np.random.default_rng(0).standard_normal(20_000)
    exact = float(np.mean(margins > np.abs(w).sum()))
    short = travelling(w, margins, steps=40, step_size=1 / 30)
    far = travelling(w, margins, steps=40, step_size=1 / 20)
    assert exact == pytest.approx(0.025, abs=0.003) and far == exact
    assert short == pytest.approx(0.055, abs=0.005)
    with pytest.raises(ConfigurationError, match=r"at least 2.*40 × 0.0333333 = 1.33; write step_size: 0.05"):
        Schedule(steps=40, step_size=1 / 30, starts=1)
    assert Schedule(steps=40, step_size=1 / 20, starts=1).steps == 40


@pytest.mark.parametrize("steps", range(1, 60))
def test_the_remedy_is_one_and_rounding_does_not_refuse_it(steps: int):
    Schedule(steps=steps, step_size=2 / steps, starts=3)
    if steps > 1:
        with pytest.raises(ConfigurationError):
            Schedule(steps=steps, step_size=1.99 / steps, starts=1)


def test_one_whole_step_from_the_input_is_enough_and_from_elsewhere_is_not():
    assert FGSM == Schedule(1, 1.0, 1)
    with pytest.raises(ConfigurationError):
        Schedule(steps=1, step_size=1.0, starts=2)
