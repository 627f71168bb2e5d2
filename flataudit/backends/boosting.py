"""Boosted trees in their libraries' own form: a score function and an objective, which says what the scores mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.class_order import places_of_classes
from flataudit.backends.sklearn_inputs import inputs_of
from flataudit.backends.sklearn_model import SklearnModel
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Loaded
from flataudit.errors import ModelError
from flataudit.mlmodel import Signature
from flataudit.specs import Job, OutputKind

if TYPE_CHECKING:
    import pandas

__all__ = ["Boosted", "boosted_model"]


@dataclass(frozen=True, eq=False)
class Boosted:
    """A booster that was read."""

    library: str
    objective: str
    """By its library's name."""
    meanings: Mapping[str, OutputKind]
    """What each objective's scores are; an objective that ends in ``*`` stands for all that begin so."""
    scores: "Callable[[NDArray[generic] | pandas.DataFrame], NDArray[generic]]"
    """Of rows: ``(n,)`` or ``(n, classes)``."""
    names: tuple[str, ...] | None
    """Of the columns that it was trained on; None: it knows none."""
    features: int
    classes: int
    """Columns of a classifier's scores, two where there is one."""

    @property
    def meaning(self) -> OutputKind | None:
        """What its scores are; None: nothing that is audited."""
        known = {name.rstrip("*"): kind for name, kind in self.meanings.items() if name.endswith("*")}
        whole = next((kind for name, kind in known.items() if self.objective.startswith(name)), None)
        return self.meanings.get(self.objective, whole)


def boosted_model(boosted: Boosted, job: Job, sample: AuditData, signature: Signature | None) -> Loaded:
    """The booster as a predictor, checked on the sample.

    Raises:
        ModelError: of another task, without probabilities, trained on other columns or classes, or answering wrongly.
    """
    kind = boosted.meaning
    named = f"a {boosted.library} booster of objective {boosted.objective!r}"
    if kind is None or job.task == "multilabel" or (kind == "values") != (job.task == "regression"):
        wanted = "a regressor" if job.task == "regression" else "a classifier with probabilities"
        remedy = f"select models of one task, trained with one of {', '.join(boosted.meanings)}"
        raise ModelError(f"{wanted} (task: {job.task})", got=named, remedy=remedy)
    known: dict[str, object] = {"n_features_in_": boosted.features}
    known |= {} if boosted.names is None else {"feature_names_in_": boosted.names}
    inputs = inputs_of(
        SimpleNamespace(**known),
        sample,
        signature,
        typed_categories=True,
        spaces_as_underscores=boosted.library == "lightgbm",
    )
    order = [] if kind == "values" else list(places_of_classes(boosted.classes, sample))

    def answer(values: NDArray[generic]) -> NDArray[generic]:
        found = np.asarray(boosted.scores(inputs.given(values)), dtype=np.float64)
        return _columns(found, kind)[:, order] if order else found

    model = SklearnModel(
        answer,
        job.task,
        outputs=kind,
        batch_size=job.batch_size,
        example_bytes=64 * int(sample.inputs[:1].nbytes),
        dtype=job.dtype or "float64",
        device=job.device,
    )
    model.no_curvature_because = (
        f"a {boosted.library} booster is made of trees, which have no parameters to differentiate"
    )
    verify(model, sample)
    return Loaded(model, "data_only", (*inputs.feed.notes, f"answers by the scores of {named}, taken for {kind}"))


def _columns(scores: NDArray[np.float64], kind: OutputKind) -> NDArray[np.float64]:
    """A column for each class; of one against the rest, whose probabilities need not add up to 1, their shares."""
    if scores.ndim == 1:
        return np.stack([1 - scores if kind == "probabilities" else np.zeros_like(scores), scores], axis=1)
    if kind != "probabilities":
        return scores
    return np.asarray(scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-30))
