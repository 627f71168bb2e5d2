"""Crafted trees are refused before they are followed; honest ones answer as before."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from flataudit.backends.sklearn_trees import make_sound
from flataudit.errors import ModelError

X, Y = load_iris(return_X_y=True)
HONEST = (
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(5, random_state=0),
    ExtraTreesClassifier(5, random_state=0),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, categorical_features=[0], random_state=0),
    AdaBoostClassifier(n_estimators=5, random_state=0),
    make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)),
    VotingClassifier([("a", DecisionTreeClassifier(random_state=0)), ("b", KNeighborsClassifier())], voting="soft"),
    KNeighborsClassifier(algorithm="kd_tree"),
    KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
)


@pytest.mark.parametrize("estimator", HONEST, ids=lambda e: type(e).__name__)
def test_honest_trees_answer_as_before(estimator) -> None:
    x = np.floor(X) if isinstance(estimator, HistGradientBoostingClassifier) else X
    estimator.fit(x, Y)
    before = estimator.predict_proba(x)
    make_sound(estimator)
    np.testing.assert_array_equal(estimator.predict_proba(x), before)


def test_an_isolation_forest_is_sound() -> None:
    make_sound(IsolationForest(n_estimators=5, random_state=0).fit(X))


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in ("left_child", "right_child") for value in (10**6, -7, 0)]
    + [("feature", 10**6), ("feature", -7)],
)
def test_a_crafted_tree_is_refused(field: str, value: int) -> None:
    forest = RandomForestClassifier(2, random_state=0).fit(X, Y)
    tree = forest.estimators_[1].tree_
    state = tree.__getstate__()
    node = int(np.flatnonzero(tree.children_left != -1)[1])
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][node] = value
    tree.__setstate__(state)
    with pytest.raises(ModelError, match="trees that lead from node to later node"):
        make_sound(forest)


def test_a_crafted_boosted_tree_is_refused() -> None:
    model = HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(X, Y)
    nodes = model._predictors[0][0].nodes
    nodes["left"][0] = 0  # a circle
    with pytest.raises(ModelError, match="in circles"):
        make_sound(model)
