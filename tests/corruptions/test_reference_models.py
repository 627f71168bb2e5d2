"""What severities do to a model, kind by kind: for each kind of data a simple reference that anybody could refit.

The effect is the share of answers that are other than on the clean inputs. It must grow with the severity, up to twice
the error of a paired difference, and accuracy must not gain from it.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from flataudit.corruptions.catalogue import KINDS, SEVERITIES, Suite

Reference = tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]


def digits() -> Reference:
    """Softmax regression on pixels: 1,797 digits of 8 × 8, half of them to fit it; each in a colour of its own."""
    found, source = load_digits(), np.random.default_rng(0)
    grey = found.images[:, None].astype(np.float64) / 16
    images = (grey * source.uniform(0.3, 1.0, (len(grey), 3, 1, 1))).astype(np.float32)
    model = LogisticRegression(max_iter=200).fit(images[:900].reshape(900, -1), found.target[:900])
    return images[900:], found.target[900:], lambda x: model.predict(x.reshape(len(x), -1))


def rows() -> Reference:
    """The rule that made the labels: a sum of numbers and of a category's weights."""
    source = np.random.default_rng(1)
    numbers, category = source.normal(size=(1500, 5)) * [1, 10, 0.1, 3, 1] + 5, source.integers(0, 6, 1500)
    weights, by_category = np.array([1, 0.1, 10, 0.3, -1]), np.array([-3, 1, 2, -2, 3, -1])
    middle = float((numbers @ weights).mean())

    def answer(x: np.ndarray) -> np.ndarray:
        place = np.clip(np.rint(x[:, 5]), 0, 5).astype(int)
        return (x[:, :5] @ weights - middle + by_category[place] > 0).astype(int)

    table = np.column_stack([numbers, category.astype(float)])
    return table, answer(table), answer


def waves() -> Reference:
    """The nearest of six pairs of waves of nearly the same frequency, in noise."""
    source, time = np.random.default_rng(2), np.linspace(0, 1, 64)
    patterns = np.sin(2 * np.pi * ((4 + np.arange(6)[:, None, None] / 6) * time + source.uniform(0, 0.1, (6, 2, 1))))
    labels = source.integers(0, 6, 900)
    series = patterns[labels] + 1.2 * source.normal(size=(900, 2, 64))

    def answer(x: np.ndarray) -> np.ndarray:
        return np.square(x[:, None] - patterns).sum(axis=(2, 3)).argmin(axis=1)

    return series, labels, answer


def words() -> Reference:
    """Of four lists of words the one with most words in the text, as they are written."""
    source, letters = np.random.default_rng(3), np.array(list("abcdefghiklmnoprstuvw"))
    lists = [["".join(source.choice(letters, source.integers(4, 9))) for _ in range(40)] for _ in range(4)]
    labels = source.integers(0, 4, 600)
    texts = [" ".join([*source.choice(lists[label], 4), *source.choice(lists[(label + 1) % 4], 2)]) for label in labels]

    def answer(x: np.ndarray) -> np.ndarray:
        return np.array([np.argmax([sum(word in known for word in text.split()) for known in lists]) for text in x])

    return np.array(texts), labels, answer


REFERENCES = {"image": digits, "table": rows, "series": waves, "text": words}
MADE = {name: make() for name, make in REFERENCES.items()}
CASES = [(data, kind) for data, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("data", "kind"), CASES)
def test_severity_grows_in_its_effect_on_a_model(data: str, kind: str) -> None:
    inputs, labels, answer = MADE[data]
    suite, clean = Suite.of(inputs, data), answer(inputs)  # type: ignore[arg-type]
    answers = [answer(suite.corrupt(inputs, kind, severity, seed=0)) for severity in SEVERITIES]
    changed = np.array([found != clean for found in answers], dtype=float)
    right = np.array([found == labels for found in answers], dtype=float)
    for lower, higher in pairwise(changed):
        assert np.mean(higher - lower) >= -2 * np.std(higher - lower) / len(labels) ** 0.5
    rise = changed[4] - changed[0]
    assert rise.mean() > 3 * rise.std() / len(labels) ** 0.5
    for lower, higher in pairwise(right):
        assert np.mean(higher - lower) <= 2.5 * np.std(higher - lower) / len(labels) ** 0.5
    assert right[4].mean() <= np.mean(clean == labels)
