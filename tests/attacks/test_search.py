"""Attacks that only ask, against exact robustness and a model of steps."""

import numpy as np
import pytest
from linear_models import AMPLE, Answers, robust, room, two_classes, victims

from flataudit.attacks.proposals import coordinates, share_moved, squares, stripes
from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region, Room, lengths
from flataudit.attacks.search import search
from flataudit.attacks.victims import Victims
from flataudit.contracts import Predictor
from flataudit.corruptions import scale
from flataudit.corruptions.draws import Draws
from flataudit.specs import Budget

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((150, 5))
W = GENERATOR.standard_normal(5)
IMAGES = GENERATOR.standard_normal((80, 2, 6, 6))
PATTERN = GENERATOR.standard_normal(72)
NORMS = ("linf", "l2")


def hunt(model: Predictor, few: Victims, region: Region, *, queries: int = 60, image: bool = False, seed: int = 0):
    proposals = "square" if image else "coordinate"
    purse = Purse(model, AMPLE, len(few))
    return search(model, few, region, seed=seed, proposals=proposals, queries=queries, purse=purse)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 4])
def test_tables_of_a_linear_model(norm: str, classes: int):
    """Exact for two classes; for more the first promise is that of the nearest class, and the rest is search."""
    weights = two_classes(W) if classes == 2 else GENERATOR.standard_normal((5, classes))
    few = victims(weights, ROWS, (ROWS @ weights).argmax(axis=1))
    region = Region(room(5, 0.5), norm, 0.5)  # type: ignore[arg-type]
    exact, found = (
        robust(weights, few, region),
        ~hunt(Answers(weights), few, region, queries=12 if classes == 2 else 60),
    )
    assert (found >= exact).all() and 0.1 < exact.mean() < 0.9
    assert np.mean(found != exact) == 0 if classes == 2 else np.mean(found != exact) <= 0.02


def test_tables_at_the_border_of_their_range():
    weights = two_classes(W)
    rows = np.minimum(np.abs(ROWS), 1.0)  # a third of the values is at the upper end
    few = victims(weights, rows, (rows @ W > 0).astype(np.int64))
    low, high = np.zeros(5), np.ones(5)
    region = Region(Room(np.ones(5), low, high), "linf", 0.5)
    towards = np.where(2 * few.labels[:, None] - 1 > 0, -np.sign(W), np.sign(W))
    reach = np.minimum(0.5, np.where(towards > 0, high - few.inputs, few.inputs - low))
    exact = np.abs(few.inputs @ W) > (np.abs(W) * reach).sum(axis=1)
    assert np.array_equal(~hunt(Answers(weights), few, region, queries=12), exact) and 0.1 < exact.mean() < 0.9


@pytest.mark.parametrize("norm", NORMS)
def test_square_attack_comes_near_and_never_beyond(norm: str):
    weights = two_classes(PATTERN)
    labels = (IMAGES.reshape(80, -1) @ PATTERN > 0).astype(np.int64)
    few = victims(weights, IMAGES, labels)
    flat = Region(room(72), norm, 0.15 if norm == "linf" else 1.0)  # type: ignore[arg-type]
    exact = robust(weights, few, flat)
    everywhere = Room(np.ones(()), np.asarray(-np.inf), np.asarray(np.inf))
    region = Region(everywhere, flat.norm, flat.epsilon)
    some, many = (~hunt(Answers(weights), few, region, queries=q, image=True) for q in (30, 600))
    assert (many >= exact).all() and (some >= many).all()
    assert some.mean() > many.mean() and many.mean() - exact.mean() < (0.15 if norm == "linf" else 0.3)


class Steps:
    """A stump: class 1 where the second value lies in one narrow band, which no corner of the ball reaches."""

    task, batch_size, dtype, device = "binary", 32, "float64", "cpu"

    def __init__(self) -> None:
        from flataudit.contracts import Meter

        self.meter = Meter()

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        self.meter.forward += len(inputs)
        inside = (inputs[:, 1] > 0.2) & (inputs[:, 1] < 0.5)
        return np.log(np.where(inside[:, None], [0.1, 0.9], [0.9, 0.1]))


def test_a_model_of_steps_has_no_slope_and_is_fooled_all_the_same():
    rows, model = np.zeros((40, 3)), Steps()
    few = Victims(rows, np.zeros(40, np.int64), np.arange(40), model.predict(rows))
    found = hunt(model, few, Region(room(3), "linf", 1.0), queries=200)
    assert found.mean() > 0.9
    assert not hunt(model, few, Region(room(3), "linf", 0.19), queries=50).any()


@pytest.mark.parametrize("image", [False, True])
def test_queries_seeds_and_blocks(image: bool, monkeypatch: pytest.MonkeyPatch):
    weights = two_classes(PATTERN)
    labels = (IMAGES.reshape(80, -1) @ PATTERN > 0).astype(np.int64)
    few, model = victims(weights, IMAGES, labels), Answers(weights)
    region = Region(Room(np.ones(()), np.asarray(-9.0), np.asarray(9.0)), "linf", 0.1)
    first = hunt(model, few, region, queries=50, image=image)
    assert model.meter.forward <= 50 * len(few) - 10 * first.sum() and 0 < first.sum() < len(few)
    assert np.array_equal(hunt(model, few, region, queries=50, image=image), first)
    monkeypatch.setattr(scale, "_BLOCK_VALUES", 500)
    assert np.array_equal(hunt(model, few, region, queries=50, image=image), first)
    part = hunt(model, few.only(np.arange(40, 60)), region, queries=50, image=image)
    assert np.array_equal(part, first[40:60])


def test_an_empty_purse_ends_it():
    weights = two_classes(W)
    few, model = victims(weights, ROWS, (ROWS @ W > 0).astype(np.int64)), Answers(weights)
    purse = Purse(model, Budget(passes=2), len(few))
    region = Region(room(5), "linf", 0.01)
    search(model, few, region, seed=0, proposals="coordinate", queries=500, purse=purse)
    assert purse.empty() and purse.spent() < 3


WIDE = Room(np.ones(()), np.asarray(-np.inf), np.asarray(np.inf))


def ball(norm: str, inputs: np.ndarray, space: Room = WIDE):
    return Region(space, norm, 1.0).around(inputs)  # type: ignore[arg-type]


def test_proposals():
    assert [share_moved(q, 10_000, 0.8) for q in (0, 11, 8001)] == [0.8, 0.4, 0.8 / 512]
    draws = Draws(0, "x", np.arange(200))
    columns = stripes((2, 5, 6), "linf", draws)
    assert set(np.unique(columns)) == {-1.0, 1.0} and (columns == columns[:, :, :1]).all()
    assert lengths(stripes((2, 5, 6), "l2", draws)) == pytest.approx(1)
    still = np.zeros((200, 2, 5, 6))
    moved = squares(ball("linf", still), still, 0.3, draws)
    assert ((moved != 0).sum(axis=(2, 3)) == 9).all() and (np.abs(moved).max(axis=1).sum(axis=(1, 2)) == 9).all()
    assert ((moved != 0).any(axis=(0, 1))).all()  # every pixel by some square
    assert lengths(squares(ball("l2", still), stripes((2, 5, 6), "l2", draws), 0.3, draws)) == pytest.approx(1)
    table = np.zeros((200, 4))
    few = coordinates(ball("linf", table), table, 0.0, draws)
    assert ((few != 0).sum(axis=1) == 1).all() and (few != 0).any(axis=0).all()
    assert 20 < (np.abs(few).max(axis=1) == 1).sum() < 180


@pytest.mark.parametrize("low", [-np.inf, 0.0])
def test_no_query_is_spent_on_the_same_point_of_the_border(low: float):
    """Half of all signs would propose it again, and so would what the range of inputs cuts off."""
    draws, inputs = Draws(0, "x", np.arange(300)), np.zeros((300, 1, 5, 6))
    around = ball("linf", inputs, Room(np.ones(()), np.asarray(low), np.asarray(np.inf)))
    z = around.inside(stripes((1, 5, 6), "linf", draws))
    flat = z.reshape(300, -1)
    table = ball("linf", flat, Room(np.ones(30), np.full(30, low), np.full(30, np.inf)))
    for moved in (squares(around, z, 0.01, draws), coordinates(table, flat, 0.0, draws)):
        assert (moved.reshape(300, -1) != flat).any(axis=1).all()


def test_a_small_image_begins_where_its_slopes_promise_and_is_exact_on_a_linear_model():
    weights, images = two_classes(PATTERN[:16]), IMAGES.reshape(-1, 1, 4, 4)[:150]
    few = victims(weights, images, (images.reshape(150, -1) @ PATTERN[:16] > 0).astype(np.int64))
    exact = robust(weights, few, Region(room(16), "linf", 0.2))
    assert np.array_equal(~hunt(Answers(weights), few, Region(WIDE, "linf", 0.2), queries=34, image=True), exact)
    assert 0.1 < exact.mean() < 0.9
