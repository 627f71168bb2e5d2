"""From an audit's packed inputs to what a pipeline's last estimator takes, and whether that way has a derivative.

Inputs are moved and corrupted before the pipeline, as they come in production; parameters are those of the last
estimator alone. Between the two stand transformers: where all of them are affine they become one matrix, through which
gradients pass exactly; else the values are transformed outside of any graph, and no gradient in the inputs is claimed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy import generic
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import FeatureUnion, Pipeline

from flataudit.backends.feeding import Feed, Part, feed
from flataudit.contracts import AuditData
from flataudit.errors import ModelError
from flataudit.mlmodel import Signature, SignatureField

if TYPE_CHECKING:
    import pandas

__all__ = ["Affine", "Inputs", "inputs_of", "unwrapped"]

_AFFINE = frozenset(
    {"IncrementalPCA", "MaxAbsScaler", "MinMaxScaler", "PCA", "RobustScaler", "StandardScaler", "TruncatedSVD"}
)
_MOST_COLUMNS = 2048
"""Of the inputs, up to which the matrix is looked for: it takes a transformation of as many rows."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ x A + b, ``(n, inputs)`` to ``(n, columns)``, in float64."""

    matrix: NDArray[np.float64]
    """A, ``(inputs, columns)``."""
    shift: NDArray[np.float64]
    """b, ``(columns,)``."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The way from packed inputs ``(n, values)`` to an estimator and to its last step."""

    feed: Feed
    as_frame: bool
    """Whether the estimator was fitted on a data frame, and so takes its columns by name."""
    steps: tuple[BaseEstimator, ...]
    """Fitted transformers, in order."""
    typed_categories: bool = False
    """Whether the frame's strings are of pandas' type for categories, which boosters match with their own by name."""

    def given(self, inputs: NDArray[generic]) -> "NDArray[generic] | pandas.DataFrame":
        """What the whole estimator takes."""
        if self.as_frame:
            frame = self.feed.frame(inputs)
            named = [part.name for part in self.feed.parts if part.categories and self.typed_categories]
            return frame.astype(dict.fromkeys(named, "category")) if named else frame
        if inputs.dtype.kind == "U":
            return inputs
        parts = [part.reshape(len(inputs), -1) for part in self.feed.arrays(inputs)]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return whole.astype(np.float64)

    def transformed(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """What the last step takes ``(n, columns)``."""
        found: object = self.given(inputs)
        for step in self.steps:
            found = step.transform(found)
        dense = found.toarray() if hasattr(found, "toarray") else found
        return np.asarray(dense, dtype=np.float64)

    def columns(self, data: AuditData) -> int:
        """How many numbers the last step takes; where steps come before, those of one example tell."""
        return self.transformed(data.inputs[:1]).shape[1] if self.steps else int(data.inputs[0].size)

    def affine(self, data: AuditData) -> Affine | str:
        """The whole way as a matrix, read off the unit vectors; else what has no derivative, in words.

        What is rounded on the way, since the model takes whole numbers, is an obstacle only where the data call it a
        number that moves: no gradient is asked in the others.
        """
        bent = next((name for step in self.steps for name in _bent(step)), None)
        if bent is not None:
            return f"the inputs pass through {bent} before the parameters, which has no derivative everywhere"
        values = int(data.inputs[0].size)
        bent_parts = [part for part in self.feed.parts if not _passes(part, data.movable or (True,) * values)]
        if not self.steps and self.feed.whole and not bent_parts:
            return Affine(np.eye(values), np.zeros(values))
        if values > _MOST_COLUMNS:
            return f"the inputs are {values} numbers, more than the {_MOST_COLUMNS} whose way is followed"
        origin = self.transformed(np.zeros((1, values)))
        matrix = self.transformed(np.eye(values)) - origin
        for part in bent_parts:  # what the steps drop is no obstacle
            if matrix[slice(None) if part.columns is None else list(part.columns)].any():
                return f"the model takes {part.name or 'its inputs'} as categories or whole numbers: no gradient there"
        return Affine(matrix, origin[0])


def unwrapped(estimator: BaseEstimator) -> tuple[tuple[BaseEstimator, ...], BaseEstimator]:
    """The transformers and the last estimator of nested pipelines, and of the best of a search."""
    steps: list[BaseEstimator] = []
    while True:
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, Pipeline):
            steps += [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
            estimator = estimator.steps[-1][1]
        else:
            return tuple(steps), estimator


def inputs_of(
    estimator: BaseEstimator,
    data: AuditData,
    signature: Signature | None,
    *,
    typed_categories: bool = False,
    spaces_as_underscores: bool = False,
) -> Inputs:
    """Match the data with the columns that the estimator was fitted on, by name where it knows names.

    Args:
        estimator: fitted; only its names and number of features are looked at, and its steps.
        data: a few examples.
        signature: the columns that it was logged with.
        typed_categories: whether it takes strings as pandas' categories.
        spaces_as_underscores: whether its names are those that it was fitted on with underscores for spaces.

    Raises:
        ModelError: a column that the data lack, or another number of columns.
    """
    steps, _ = unwrapped(estimator)
    names, count = _names(estimator), getattr(estimator, "n_features_in_", None)
    if names is not None:
        names, told = _respelled(names, data) if spaces_as_underscores else (names, ())
        found = feed(data, Signature(inputs=tuple(_declared(data, signature, names))))
        return Inputs(replace(found, notes=(*found.notes, *told)), True, steps, typed_categories)
    words = next((field.name for field in data.fields if field.kind == "category"), None)
    if words is not None:
        remedy = "fit it on a data frame, so that it knows its columns, or encode the categories in the data"
        remedy += f"; if it takes texts, declare `text: {words}` with the data" if len(data.fields) == 1 else ""
        got = "one of an array, and data with categories"
        raise ModelError("a model that was fitted on named columns", got=got, remedy=remedy)
    columns = signature is not None and signature.inputs and signature.inputs[0].shape is None
    found = feed(data, signature) if columns else Feed((Part(None, None, (), ""),))
    width = sum(len(part.columns) if part.columns is not None else int(data.inputs[0].size) for part in found.parts)
    _refuse_other_width(width, count)
    return Inputs(found, False, steps)


def _refuse_other_width(width: int, count: int | None) -> None:
    if count is not None and width != int(count):
        remedy = "list the columns that it was trained on with `inputs`, in their order"
        raise ModelError(f"the {count} columns that the model was trained on", got=str(width), remedy=remedy)


def _names(estimator: BaseEstimator) -> list[str] | None:
    """The columns that it was fitted on; None where it knows none, or LightGBM made some up."""
    found = getattr(estimator, "feature_names_in_", None)
    names = None if found is None else [str(name) for name in found]
    return None if names is None or names == [f"Column_{place}" for place in range(len(names))] else names


def _respelled(names: Sequence[str], data: AuditData) -> tuple[list[str], tuple[str, ...]]:
    """The data's own spelling of each name: LightGBM writes an underscore for every space, and no two columns alike."""
    own = {field.name for field in data.fields}
    spelled = {name.replace(" ", "_"): name for name in own if " " in name}
    found = [name if name in own else spelled.get(name, name) for name in names]
    moved = [one for one, name in zip(found, names, strict=True) if one != name]
    if not moved:
        return found, ()
    return found, (f"names with spaces were matched with LightGBM's underscores: {', '.join(moved[:8])}",)


def _declared(data: AuditData, signature: Signature | None, names: list[str]) -> Iterator[SignatureField]:
    """A field for each column of the estimator, with its type as it was logged, or else as the data have it.

    What the data call a number stays one, also where whole numbers were logged: scikit-learn takes either, and nothing
    is rounded.
    """
    logged = {field.name: field for field in signature.inputs} if signature else {}
    kinds = {"number": "double", "integer": "long", "boolean": "boolean", "category": "string"}
    own = {field.name: kinds[field.kind] for field in data.fields}
    for name in names:
        known = logged.get(name)
        kind = own.get(name, "double")
        if known is not None and known.shape is None and not (kind == "double" and known.dtype in ("integer", "long")):
            kind = known.dtype
        yield SignatureField(name=name, dtype=kind)  # required: scikit-learn refuses a frame that lacks a column


def _passes(part: Part, movable: Sequence[bool]) -> bool:
    """Whether this input of the model is, where it moves, the number that the data hold."""
    moves = any(movable if part.columns is None else [movable[column] for column in part.columns])
    return not part.categories and (np.dtype(part.dtype or "float64").kind == "f" or not moves)


def _bent(step: object) -> Iterator[str]:
    """Names of the transformers in a step that are not known to be affine."""
    if isinstance(step, Pipeline):
        yield from (name for _, part in step.steps for name in _bent(part))
    elif isinstance(step, ColumnTransformer):
        yield from (name for _, part, _ in step.transformers_ for name in _bent(part))
    elif isinstance(step, FeatureUnion):
        yield from (name for _, part in step.transformer_list for name in _bent(part))
    elif not _is_affine(step):
        yield type(step).__name__


def _is_affine(step: object) -> bool:
    if step is None or isinstance(step, str):  # "passthrough" and "drop"
        return True
    name, ours = type(step).__name__, type(step).__module__.startswith("sklearn.")
    if name == "FunctionTransformer":
        return ours and cast("BaseEstimator", step).get_params()["func"] is None
    return ours and ((name in _AFFINE and not getattr(step, "clip", False)) or isinstance(step, SelectorMixin))
