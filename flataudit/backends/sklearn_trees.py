"""Trees inside of estimators that were read from data: checked before scikit-learn's compiled code follows them.

A fitted tree is arrays of node numbers and feature numbers that are followed without a look at their bounds: a crafted
file could lead out of the arrays, or in circles. Search trees over training points are built anew instead.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.neighbors import BallTree, KDTree
from sklearn.tree._tree import Tree

from flataudit.errors import ModelError

__all__ = ["make_sound"]

_DEPTH = 24


def make_sound(estimator: BaseEstimator) -> None:
    """Check every tree inside, and rebuild every search tree, in place.

    Raises:
        ModelError: a tree whose nodes or features lead out of its arrays, or in circles.
    """
    for owner, thing in _inside(estimator, estimator, set(), 0):
        if isinstance(thing, Tree):
            _check(thing.children_left, thing.children_right, thing.feature, int(thing.n_features), leaf=-1)
        elif isinstance(thing, TreePredictor):
            _check_predictor(thing, int(getattr(owner, "_n_features", getattr(owner, "n_features_in_", 0))))
        elif isinstance(thing, KDTree | BallTree):
            _rebuild(owner, type(thing))


def _inside(owner: object, thing: object, seen: set[int], depth: int) -> Iterator[tuple[object, object]]:
    """Every tree, with the estimator that holds it."""
    if id(thing) in seen or depth > _DEPTH:
        return
    seen.add(id(thing))
    if isinstance(thing, Tree | TreePredictor | KDTree | BallTree):
        yield owner, thing
    elif isinstance(thing, Mapping):
        for value in thing.values():
            yield from _inside(owner, value, seen, depth + 1)
    elif isinstance(thing, list | tuple) or (isinstance(thing, np.ndarray) and thing.dtype == object):
        for value in thing:
            yield from _inside(owner, value, seen, depth + 1)
    elif type(thing).__module__.startswith("sklearn.") and hasattr(thing, "__dict__"):
        for value in vars(thing).values():
            yield from _inside(thing, value, seen, depth + 1)


def _check(
    left: "NDArray[generic]", right: "NDArray[generic]", feature: "NDArray[generic]", features: int, *, leaf: int
) -> None:
    """Children come after their parent, as every grower numbers them: so there is no way out and none around."""
    count = len(left)
    numbers = np.arange(count)
    inner = left != leaf
    children = np.stack([left[inner], right[inner]]).astype(np.int64)
    sound = count > 0 and bool((children > numbers[inner]).all() and (children < count).all())
    asked = feature[inner].astype(np.int64)
    if not sound or not bool(((asked >= 0) & (asked < features)).all()) or bool((right[~inner] != leaf).any()):
        got = "one whose nodes or features lead out of its arrays, or in circles"
        raise ModelError("trees that lead from node to later node", got=got, remedy="log the model again")


def _check_predictor(predictor: TreePredictor, features: int) -> None:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    left = np.where(inner, nodes["left"].astype(np.int64), -1)
    right = np.where(inner, nodes["right"].astype(np.int64), -1)
    _check(left, right, nodes["feature_idx"].astype(np.int64), features, leaf=-1)
    categorical = inner & (nodes["is_categorical"] != 0)
    sets = len(predictor.raw_left_cat_bitsets)
    if bool((nodes["bitset_idx"][categorical].astype(np.int64) >= sets).any()):
        got = "a node whose set of categories is not there"
        raise ModelError("trees that are whole", got=got, remedy="log the model again")


def _rebuild(owner: object, kind: type[KDTree] | type[BallTree]) -> None:
    points = getattr(owner, "_fit_X", None)
    if points is None:
        got = f"one in a {type(owner).__name__} without them"
        raise ModelError("a search tree beside the points that it holds", got=got, remedy="log the model again")
    parameters = dict(getattr(owner, "effective_metric_params_", None) or {})
    metric = getattr(owner, "effective_metric_", "minkowski")
    owner._tree = kind(points, leaf_size=owner.leaf_size, metric=metric, **parameters)  # type: ignore[attr-defined]  # a neighbours estimator's own
