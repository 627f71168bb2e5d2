"""How accurate the model may be on inputs that nobody labelled, and what each guess takes for granted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from scipy.stats import rankdata

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.evidence import Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.answers import answers
from flataudit.statistics.correctness import correctness
from flataudit.statistics.label_free import (
    Estimated,
    average_thresholded_confidence,
    confidence_difference,
    guess,
    mano,
    negative_entropies,
    nuclear_norm,
)

__all__ = ["LabelFree"]

ATC = Metric(
    name="estimated_accuracy_atc",
    unit="accuracy",
    better="higher",
    description="Accuracy by average thresholded confidence (Garg et al. 2022), if the threshold survives the shift.",
)
DOC = Metric(
    name="estimated_accuracy_doc",
    unit="accuracy",
    better="higher",
    description="Validation accuracy less the fall in confidence (Guillory et al. 2021), if calibration survives.",
)
NUCLEAR = Metric(
    name="estimated_accuracy_nuclear",
    unit="accuracy",
    better="higher",
    description="Accuracy by the nuclear norm of the answers (Deng et al. 2023), if it falls as in blends.",
)
NORM = Metric(
    name="nuclear_norm",
    unit="1",
    better="neither",
    description="Nuclear norm of the answers over its maximum: 1 is certain and varied, 1/√K one class for all.",
)
_ASSUMPTIONS = {
    ATC: "one threshold of confidence parts right from wrong as well after the shift as before",
    DOC: "the model is as over- or underconfident after the shift as before",
    NUCLEAR: "accuracy falls with the nuclear norm after the shift as it does where validation examples are blended",
}
_NEEDED_CORRELATION = 0.9
_LARGEST_SHARE = 0.5
"""Of another example in the strongest blend."""


class LabelFree(Record):
    """Three guesses of accuracy on each unlabelled set, by one classifier alone; a fourth needs several candidates.

    Each is as good as its assumption, which `details` state and unlabelled inputs cannot check: the standard error is
    unknown (None), and ``sampling error`` in the details is what the examples alone contribute. A guess is for noticing
    that something fell, not for passing a criterion; the details say what 50 labels would tell instead.

    ``estimated_accuracy_nuclear`` is interpolated among `copies` of validation examples that are blended with each
    other more and more, and not given where their accuracy does not rise with their norm (rank correlation below 0.9)
    or the set's norm lies outside theirs. ``nuclear_norm`` and its contrast MaNo (in the details) are exact on these
    examples. Forward passes: one over the set, one over validation, and `copies` over at most `copied` of its examples.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "unlabelled"
    reference: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (ATC, DOC, NUCLEAR, NORM)

    copies: Annotated[int, Field(ge=3)] = 8
    """Blended copies of validation, the first unblended, the last half of other examples."""
    copied: PositiveInt = 500
    """The most validation examples that a copy has."""
    replicates: Annotated[int, Field(ge=20)] = 200
    """Bootstrap resamples."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All four of this set."""
        reason = _unfit(model, data)
        if reason is not None:
            return [Reading(m.of(data.name).missing(Outcome.NOT_APPLICABLE, reason)) for m in self.metrics]
        assert data.reference is not None and data.reference.targets is not None
        ours, theirs = answers(model, data.reference), answers(model, data)
        right = correctness(model.task, ours, data.reference.targets)
        bootstrap, blends = (np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(2))
        scores, target = negative_entropies(ours), negative_entropies(theirs)
        atc = average_thresholded_confidence(scores, right, target, bootstrap, replicates=self.replicates)
        doc = confidence_difference(_top(ours), right, _top(theirs))
        norm, clean = nuclear_norm(np.exp(theirs)), nuclear_norm(np.exp(ours))
        told = {"on validation": clean.estimate, "MaNo": mano(np.exp(theirs)), "MaNo on validation": mano(np.exp(ours))}
        measured = NORM.of(data.name).measured(
            norm.estimate, standard_error=norm.sampling_error, n=len(data), details=told
        )
        guesses = [
            guess(
                m.of(data.name), one, assumption=_ASSUMPTIONS[m], n=len(data), validation_accuracy=float(right.mean())
            )
            for m, one in ((ATC, atc), (DOC, doc))
        ]
        return [Reading(m) for m in (*guesses, self._nuclear(model, data, right, blends, budget), measured)]

    def _nuclear(
        self,
        model: Predictor,
        data: AuditData,
        right: NDArray[np.float64],
        generator: np.random.Generator,
        budget: Budget,
    ) -> Measurement:
        metric, validation = NUCLEAR.of(data.name), data.reference
        assert validation is not None
        n = min(len(validation), len(data), self.copied)
        if validation.inputs.dtype.kind != "f" and validation.kind != "image":
            what = "texts" if validation.kind == "text" else "inputs that are whole numbers"
            return metric.missing(Outcome.NOT_APPLICABLE, f"{what} cannot be blended")
        if validation.inputs.dtype.kind == "f" and np.isnan(validation.inputs).any():
            return metric.missing(Outcome.NOT_APPLICABLE, "inputs of which some are missing (NaN) cannot be blended")
        if n < 20:
            return metric.missing(Outcome.NOT_APPLICABLE, f"{n} examples; 20 are needed for a norm to mean anything")
        if self.copies * n / len(data) / 2 > budget.passes:
            advice = "raise budget.passes or copy fewer examples: `copied`"
            return metric.missing(Outcome.OVER_BUDGET, f"{self.copies} copies of {n} examples are too many", advice)
        curve = _blended(model, validation, n, self.copies, generator)
        chosen = np.sort(generator.choice(len(data), n, replace=False))
        norm = nuclear_norm(np.exp(answers(model, data)[chosen]))
        return _read_off(metric, curve, norm, data, right)


@dataclass(frozen=True, eq=False)
class _Curve:
    """Nuclear norm and accuracy of the blended copies."""

    norms: NDArray[np.float64]
    accuracies: NDArray[np.float64]


def _blended(model: Predictor, validation: AuditData, n: int, copies: int, generator: np.random.Generator) -> _Curve:
    """Copies of n examples, each mixed with another one in a growing share; whole numbers stay whole.

    Blends lose confidence and accuracy together. Noise, the obvious other choice, makes some models surer.
    """
    assert validation.targets is not None
    chosen = np.sort(generator.choice(len(validation), n, replace=False))
    own = np.asarray(validation.inputs[chosen], dtype=np.float64)
    norms, accuracies = [], []
    for share in np.linspace(0.0, _LARGEST_SHARE, copies):
        blend = (1 - share) * own + share * own[generator.permutation(n)]
        blend = blend if validation.inputs.dtype.kind == "f" else np.rint(blend)
        found = np.asarray(model.predict(blend.astype(validation.inputs.dtype)), dtype=np.float64)
        norms.append(nuclear_norm(np.exp(found)).estimate)
        accuracies.append(float(correctness(model.task, found, validation.targets[chosen]).mean()))
    return _Curve(np.array(norms), np.array(accuracies))


def _read_off(
    metric: Metric, curve: _Curve, norm: Estimated, data: AuditData, right: NDArray[np.float64]
) -> Measurement:
    order = np.argsort(curve.norms, kind="stable")
    norms, accuracies = curve.norms[order], curve.accuracies[order]
    together = _rank_correlation(norms, accuracies)
    if together < _NEEDED_CORRELATION:
        told = f"the blended copies' accuracy does not rise with their nuclear norm (rank correlation {together:.2f})"
        return metric.missing(Outcome.NOT_APPLICABLE, told)
    low, high = float(norms[0]), float(norms[-1])
    slack = (high - low) / 10 + 2 * (norm.sampling_error or 0.0)
    if not low - slack <= norm.estimate <= high + slack:
        reason = f"its nuclear norm {norm.estimate:.3f} lies outside what blended copies reach, {low:.3f} to {high:.3f}"
        return metric.missing(Outcome.NOT_APPLICABLE, reason)
    at = float(np.interp(norm.estimate, norms, accuracies))
    slope = (float(accuracies.max()) - float(accuracies.min())) / (high - low)
    few = at * (1 - at) / min(len(data), len(right))
    error = None if norm.sampling_error is None else float(np.hypot(slope * norm.sampling_error, few**0.5))
    return guess(
        metric,
        Estimated(at, error),
        assumption=_ASSUMPTIONS[NUCLEAR],
        n=len(data),
        validation_accuracy=float(right.mean()),
        extra={"rank correlation of the copies": together},
    )


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's; 0 where either does not vary."""
    ranks = [rankdata(values) for values in (one, other)]
    spread = float(np.std(ranks[0]) * np.std(ranks[1]))
    return float(np.mean(ranks[0] * ranks[1]) - np.mean(ranks[0]) * np.mean(ranks[1])) / spread if spread > 0 else 0.0


def _unfit(model: Predictor, data: AuditData) -> str | None:
    """Why nothing can be guessed."""
    if model.task not in ("multiclass", "binary"):
        return f"a model for {model.task} states no one confidence"
    because: str | None = getattr(model, "no_probabilities_because", None)
    if because is not None:
        return because
    if data.reference is None or data.reference.targets is None:
        return "there are no validation examples to start from"
    if data.reference.targets.ndim > 1:
        return "several answers an example are not yet measured"
    return None


def _top(log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.minimum(np.exp(log_probabilities.max(axis=1)), 1.0))
