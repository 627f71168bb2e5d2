"""An end in time: nothing is begun after it, and what was done by then is told for what it is."""

import math
from collections.abc import Callable, Iterator

import networks
import pytest
import torch

from flataudit.curvature import deadline
from flataudit.curvature.ascent import worst_rises
from flataudit.curvature.deadline import Deadline, OutOfTime
from flataudit.curvature.hutchinson import FEWEST_VECTORS, PILOT_VECTORS, estimate_trace
from flataudit.curvature.noise import average_rises
from flataudit.curvature.scales import scale_of
from flataudit.curvature.surface import Surface
from flataudit.specs import Budget


class Clock:
    """Time by hand: a second passes with each batch of the model that it is wound by."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def wind(self, model: networks.Network) -> None:
        answer = model.raw_outputs

        def ticking(parameters: object, inputs: torch.Tensor) -> torch.Tensor:
            self.seconds += 1
            return answer(parameters, inputs)  # type: ignore[arg-type]

        model.raw_outputs = ticking  # type: ignore[method-assign]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(deadline, "now", found)
    yield found


def surface(clock: Clock, make: Callable[[], torch.nn.Module] = networks.tanh_mlp, *, batch_size: int = 5) -> Surface:
    """Of 40 examples, 8 batches; what a first look costs is behind it."""
    network = networks.Network(make())
    network.batch_size = batch_size
    found = Surface.of(network, networks.examples(40))
    found.slope_here(), found.before_products(), found.batch_size
    clock.wind(network)
    return found


def test_nothing_is_begun_after_the_end(clock: Clock) -> None:
    end = Deadline().sooner(2.5)
    for _ in end.each(range(3)):
        clock.seconds += 1
    with pytest.raises(OutOfTime):
        end.check()
    assert end.over and end.left == -0.5 and not Deadline().over


def test_an_inner_end_never_outlasts_an_outer_one_and_is_forgotten(clock: Clock) -> None:
    found = surface(clock)
    with found.within(5.0) as outer:
        with found.within(100.0) as inner:
            assert inner == outer
        with found.within(1.0):
            assert found.deadline.at == 1.0
        assert found.deadline == outer
    assert found.deadline.at == math.inf


def test_a_pass_over_the_data_ends_with_the_batch_that_was_begun(clock: Clock) -> None:
    found = surface(clock)
    with found.within(3.5), pytest.raises(OutOfTime):
        found.gradient(found.origin)
    assert clock.seconds == 4  # of 8 batches
    assert found.gradient(found.origin)[0] == pytest.approx(found.loss_here())


def test_vectors_that_are_done_are_an_estimate_and_else_the_pilot_is(clock: Clock) -> None:
    whole = estimate_trace(surface(clock), 0, relative_error=1e-3, budget=Budget(passes=80, seconds=1e9))
    assert whole is not None and whole.vectors == 36 and whole.stopped == "budget"
    pilot = estimate_trace(surface(clock), 0, relative_error=1e-3, budget=Budget(passes=80, seconds=60.0))
    assert pilot is not None and pilot.vectors == PILOT_VECTORS and pilot.stopped == "budget"
    assert pilot.standard_error is not None and whole.standard_error is not None
    assert pilot.standard_error > whole.standard_error
    assert abs(pilot.estimate - whole.estimate) < 4 * pilot.standard_error
    assert estimate_trace(surface(clock), 0, relative_error=1e-3, budget=Budget(passes=80, seconds=5.0)) is None
    assert FEWEST_VECTORS > 2


def test_draws_and_steps_that_are_done_count(clock: Clock) -> None:
    found = surface(clock)
    scale, began = scale_of(found, "element"), clock.seconds
    (some,) = average_rises(found, 0, scale=scale, sigmas=[0.1], draws=20, budget=Budget(passes=100, seconds=250.0))
    assert 2 <= some.draws < 20 and some.standard_error and clock.seconds - began <= 250 + 2
    began = clock.seconds
    (rise,) = worst_rises(
        found,
        0,
        scale=scale,
        radii=[0.5],
        max_steps=50,
        relative_error=1e-9,
        budget=Budget(passes=1000, seconds=20.0),
    )
    assert rise.rise and not rise.converged and clock.seconds - began <= 20 + 1
