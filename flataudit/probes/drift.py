"""How far a set of inputs lies from the validation inputs, whatever the model makes of it."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from flataudit.contracts import AuditData, Predictor, Reading
from flataudit.corruptions.scale import moments
from flataudit.evidence import Measurement, Metric, Outcome, Record
from flataudit.specs import Budget, Role
from flataudit.statistics.domains import domain_auc, kernel_distance
from flataudit.statistics.drift import Moved, kolmogorov_smirnov, population_stability, wasserstein

__all__ = ["Drift"]

AUC = Metric(
    name="drift_domain_auc",
    unit="probability",
    description="AUC of a cross-fitted linear classifier that tells the set from validation. 0.5: cannot tell.",
)
KS = Metric(
    name="drift_ks",
    unit="probability",
    description="Largest Kolmogorov-Smirnov distance of a feature between the set and validation.",
)
W1 = Metric(
    name="drift_w1",
    unit="standard deviations",
    description="Largest Wasserstein-1 distance of a feature, in its standard deviations on validation.",
)
PSI = Metric(
    name="drift_psi",
    unit="nats",
    description="Largest population stability index of a feature over validation's quantile bins.",
)
MMD = Metric(
    name="drift_mmd2",
    unit="1",
    description="Squared maximum mean discrepancy of the inputs, Gaussian kernel, unbiased; may be below 0.",
)


class Drift(Record):
    """Five effect sizes between validation inputs and each shifted or unlabelled set: no p-value, and no forward pass.

    Inputs are flattened, and beyond `features` numbers an example replaced by as many random projections of the
    standardised inputs. ``drift_ks``, ``drift_w1`` and ``drift_psi`` are those of the feature that moved most, which
    `details` name; their intervals hold all features at once. ``drift_domain_auc`` and ``drift_mmd2`` see all features
    together, on a sample of the examples. For one feature shifted by δ standard deviations, normal: 2Φ(δ/2) − 1; δ;
    δ² (in the limit of many bins); Φ(δ/√2). They describe the data, and are the same for every candidate: large drift
    asks for labels of the shifted set, it does not say that the model is wrong there.
    """

    version: ClassVar[str] = "2"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "shifted"
    also: ClassVar[tuple[Role, ...]] = ("unlabelled",)
    reference: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (AUC, KS, W1, PSI, MMD)

    features: PositiveInt = 128
    """Inputs with more numbers an example are projected to this many."""
    bins: Annotated[int, Field(ge=2)] = 10
    """Of the population stability index."""
    examples: Annotated[int, Field(ge=20)] = 1000
    """The most of each set that the domain classifier sees."""
    kernel_examples: Annotated[int, Field(ge=2)] = 500
    """The most of each set that the kernel distance sees."""

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        """All five of this set."""
        validation = data.reference
        if validation is None or validation.inputs.shape[1:] != data.inputs.shape[1:]:
            reason = "there are no validation inputs of the same shape to compare with"
            return _absent(data, reason, *self.metrics)
        if "U" in (validation.inputs.dtype.kind, data.inputs.dtype.kind):
            return _absent(data, "texts have no features to compare; their token ids would be names", *self.metrics)
        if any(d.inputs.dtype.kind == "f" and np.isnan(d.inputs).any() for d in (validation, data)):
            reason = "some inputs are missing (NaN), and every distance would depend on what stands for them"
            return _absent(data, reason, *self.metrics)
        projected, sampled = np.random.SeedSequence(seed).spawn(2)
        ours, theirs, columns = self._columns(validation, data, np.random.default_rng(projected))
        psi = population_stability(ours, theirs, bins=self.bins)
        singles = ((KS, kolmogorov_smirnov(ours, theirs)), (W1, wasserstein(ours, theirs)), (PSI, psi))
        readings = [Reading(_worst(metric.of(data.name), found, columns, len(theirs))) for metric, found in singles]
        return [*readings, *self._together(ours, theirs, data, np.random.default_rng(sampled))]

    def _columns(
        self, validation: AuditData, data: AuditData, generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
        """Both sets as ``(n, d)``, in standard deviations of the two together, and the columns' names.

        Together, since a pixel that hardly varies on validation would outweigh all others.
        """
        ours, theirs = (np.asarray(d.inputs, dtype=np.float64).reshape(len(d), -1) for d in (validation, data))
        shape, centre = data.inputs.shape[1:], moments(ours, by_feature=True)[0]
        pooled = moments(np.concatenate([ours, theirs]), by_feature=True)[1]
        unit = np.where(pooled > 0, pooled, 1.0)
        ours, theirs = (ours - centre) / unit, (theirs - centre) / unit
        if ours.shape[1] <= self.features:
            places = [np.unravel_index(k, shape) for k in range(ours.shape[1])] if len(shape) > 1 else []
            named = [f"feature {tuple(int(i) for i in place)}" for place in places]
            return ours, theirs, named or [f"feature {k}" for k in range(ours.shape[1])]
        directions = generator.standard_normal((ours.shape[1], self.features))
        directions /= np.linalg.norm(directions, axis=0)
        return ours @ directions, theirs @ directions, [f"random projection {k}" for k in range(self.features)]

    def _together(
        self, ours: NDArray[np.float64], theirs: NDArray[np.float64], data: AuditData, generator: np.random.Generator
    ) -> list[Reading]:
        fewest = min(len(ours), len(theirs))
        if fewest < 20:
            return _absent(data, f"{fewest} examples; both sets need 20 to be told apart", AUC, MMD)
        details = {"seen": f"{ours.shape[1]} features or projections together"}
        auc = domain_auc(_some(ours, self.examples, generator), _some(theirs, self.examples, generator), generator)
        same = min(fewest, self.kernel_examples)
        mmd, width = kernel_distance(_some(ours, same, generator), _some(theirs, same, generator))
        kernel = details | {"kernel width": width}
        return [
            Reading(AUC.of(data.name).measured(**vars(auc), details=details)),
            Reading(MMD.of(data.name).measured(**vars(mmd), details=kernel)),
        ]


def _worst(metric: Metric, found: Moved, columns: Sequence[str], n: int) -> Measurement:
    return metric.measured(
        float(found.estimates[found.worst]),
        interval=found.interval,
        n=n,
        details={
            "feature": columns[found.worst],
            "features": float(len(columns)),
            "median of the features": float(np.median(found.estimates)),
            "by chance, on average": found.by_chance,
        },
    )


def _some(rows: NDArray[np.float64], most: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """At most so many rows, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(generator.choice(len(rows), most, replace=False))]


def _absent(data: AuditData, reason: str, *metrics: Metric) -> list[Reading]:
    return [Reading(metric.of(data.name).missing(Outcome.NOT_APPLICABLE, reason)) for metric in metrics]
