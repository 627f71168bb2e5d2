"""How each selector chooses among the candidates of a draw, and what its choice costs on every shift.

The default rule is the package's own: `PairedComparer.score` and ``compare``, then `flataudit.judge.decide`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from selection_draws import KEPT_FLATNESS, NOISES, SEVERITIES, Draw

from flataudit.decision import Comparison, Decision
from flataudit.evidence import Array, Evidence, Examined
from flataudit.judge import decide
from flataudit.policy import NonInferiority, Policy
from flataudit.statistics.comparer import PairedComparer

__all__ = ["CONTEXT", "PARTS", "SELECTORS", "Judged", "clean", "costs", "policy_of", "with_targets"]

LABELLED, RESAMPLES = 50, 400
COMPARER = PairedComparer()
SELECTORS = (
    "validation accuracy",
    "random in the band",
    "default",
    "default, 400 unlabelled",
    "flatness ranks in the band",
    "average sharpness in the band",
    "relative flatness in the band",
    "50 labelled in the band",
    "50 labelled, all candidates",
    "best in the band",
)
"""The study itself; `flatness ranks` is the mean rank of trace, λ_max and adaptive sharpness."""
BANDS = (1, 3)
"""Other widths of the band, in standard errors; the default is 2."""
CONTEXT = (
    *(f"default, band of {w}" for w in BANDS),
    *(f"400 unlabelled, band of {w}" for w in BANDS),
    "random of all",
    "score, no band",
    "score with 400 unlabelled, no band",
    "400 labelled in the band",
    "best on average, in the band",
    "best on average, of all",
)
"""What bounds the others: one model for all shifts of a family cannot be better than the best on average."""
PARTS = (
    "clean",
    "corrupted",
    *(f"corrupted, severity {s}" for s in SEVERITIES),
    *(f"weight noise {s:g}" for s in NOISES),
    "agreement",
)
"""Parts of the score, each alone as the tie-break in the band."""
_RANKED = {"hessian_trace": 1.0, "lambda_max": 1.0, "sharpness_adaptive": 1.0}
_JUDGED = ("validation_accuracy", "validation_r2", "corruption_accuracy", "weight_noise_accuracy", *KEPT_FLATNESS)
Costs = Mapping[str, float]
"""By shift: points of accuracy lost to the best candidate."""


def policy_of(draw: Draw, **fields: object) -> Policy:
    """The default policy; of a regression, R² takes the place of accuracy."""
    regression = draw.examined[0].evidence.get("validation_r2")
    if regression is not None and regression.estimate is not None:
        fields["non_inferiority"] = NonInferiority(metric="validation_r2")
    return Policy.model_validate(fields)


@dataclass(frozen=True, eq=False)
class Judged:
    """Candidates scored and compared once, as a gate does it, for any number of decisions."""

    evidences: Sequence[Evidence]
    comparisons: Sequence[Comparison]

    @classmethod
    def of(cls, examined: Sequence[Examined], policy: Policy) -> "Judged":
        """By the package's own comparer."""
        scored = COMPARER.score([_judged(one) for one in examined], policy)
        return cls([one.evidence for one in scored], COMPARER.compare(scored, policy))

    def decide(self, policy: Policy, champion: str | None = None) -> Decision:
        """By the package's own judge."""
        return decide(policy, self.evidences, self.comparisons, champion=champion)

    def values(self, metric: str) -> NDArray[np.float64]:
        """The estimates by candidate; what was not measured counts as the worst."""
        found = [evidence.get(metric) for evidence in self.evidences]
        return np.array([-np.inf if m is None or m.estimate is None else m.estimate for m in found])


def with_targets(draw: Draw, shift: str) -> tuple[Examined, ...]:
    """The candidates with their predictions on the unlabelled target inputs of one shift."""
    kept = [Array.pack(np.ascontiguousarray(row)) for row in draw.predictions[shift]]
    return tuple(
        Examined(one.evidence, {**one.arrays, "predictions/target": predicted})
        for one, predicted in zip(draw.examined, kept, strict=True)
    )


def costs(draw: Draw, plain: Judged, targeted: Mapping[str, Judged]) -> Mapping[str, Costs]:
    """The regret of every selector on every shift, in points.

    Args:
        draw: of eight candidates.
        plain: the same without target inputs.
        targeted: by shift, with its target inputs.
    """
    decision = plain.decide(policy_of(draw))
    tied = _mask(draw, decision.tied)

    def choice(**fields: object) -> NDArray[np.bool_]:
        return _mask(draw, [plain.decide(policy_of(draw, **fields)).promoted])

    fixed = {
        "validation accuracy": (clean(draw), None),
        "random in the band": (np.zeros(len(tied)), tied),
        "default": (_mask(draw, [decision.promoted]), None),
        **{f"default, band of {w}": (choice(band_width=w), None) for w in BANDS},
        "random of all": (np.zeros(len(tied)), None),
        "score, no band": (plain.values("score"), None),
        "best on average, in the band": (_on_average(draw), tied),
        "best on average, of all": (_on_average(draw), None),
        "flatness ranks in the band": (choice(tie_break=_RANKED), None),
        "average sharpness in the band": (choice(tie_break=("sharpness_average",)), None),
        "relative flatness in the band": (choice(tie_break=("relative_flatness",)), None),
        **{name: (values, tied) for name, values in _parts(draw).items()},
    }
    found = {name: _everywhere(draw, values, pool) for name, (values, pool) in fixed.items()}
    for shift, judged in targeted.items():
        for name, cost in _targeted(draw, shift, judged, tied).items():
            found.setdefault(name, {})[shift] = cost
    return found


def clean(draw: Draw) -> NDArray[np.float64]:
    """``(8,)`` validation accuracy, or R²."""
    metric = policy_of(draw).non_inferiority.metric
    return np.array([one.evidence[metric].estimate for one in draw.examined], dtype=np.float64)


def _targeted(draw: Draw, shift: str, judged: Judged, tied: NDArray[np.bool_]) -> Mapping[str, float]:
    """The selectors that see something of the shift."""
    shifted, rights = draw.shifted[shift], _labelled(draw.seen[shift])

    def choice(**fields: object) -> NDArray[np.bool_]:
        return _mask(draw, [judged.decide(policy_of(draw, **fields)).promoted])

    return {
        "default, 400 unlabelled": _cost(shifted, choice()),
        **{f"400 unlabelled, band of {w}": _cost(shifted, choice(band_width=w)) for w in BANDS},
        "score with 400 unlabelled, no band": _cost(shifted, judged.values("score")),
        "agreement": _cost(shifted, judged.values("agreement/target"), tied),
        "50 labelled in the band": float(np.mean([_cost(shifted, right, tied) for right in rights])),
        "50 labelled, all candidates": float(np.mean([_cost(shifted, right) for right in rights])),
        "400 labelled in the band": _cost(shifted, draw.seen[shift].mean(axis=1), tied),
        "best in the band": _cost(shifted, shifted, tied),
    }


def _on_average(draw: Draw) -> NDArray[np.float64]:
    """``(8,)`` accuracy averaged over the shifts."""
    return np.mean(list(draw.shifted.values()), axis=0)


def _labelled(right: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Accuracy of each candidate on 50 of the target examples, many times over."""
    source = np.random.default_rng(0)
    return [right[:, source.permutation(right.shape[1])[:LABELLED]].mean(axis=1) for _ in range(RESAMPLES)]


def _everywhere(draw: Draw, values: NDArray[np.generic], pool: NDArray[np.bool_] | None) -> dict[str, float]:
    return {shift: _cost(shifted, values, pool) for shift, shifted in draw.shifted.items()}


def _cost(shifted: NDArray[np.float64], values: NDArray[np.generic], pool: NDArray[np.bool_] | None = None) -> float:
    """Regret of the candidate with the highest value, in points; the mean where several have it."""
    among = np.ones(len(shifted), dtype=bool) if pool is None else pool
    ranked = np.where(among, np.asarray(values, dtype=np.float64), -np.inf)
    return float(100 * (shifted.max() - shifted[ranked >= ranked.max()].mean()))


def _parts(draw: Draw) -> Mapping[str, NDArray[np.float64]]:
    """Every part of the score but agreement; clean R² where the score has the bounded skill."""
    severities = draw.cells.mean(axis=1)
    return {
        "clean": clean(draw),
        "corrupted": draw.cells.mean(axis=(1, 2)),
        **{f"corrupted, severity {s}": severities[:, i] for i, s in enumerate(SEVERITIES)},
        **{f"weight noise {s:g}": draw.noisy[:, i] for i, s in enumerate(NOISES)},
    }


def _mask(draw: Draw, labels: Sequence[str | None]) -> NDArray[np.bool_]:
    return np.array([label in labels for label in draw.labels])


def _judged(one: Examined) -> Examined:
    """Without the losses and other numbers that no rule here reads: comparing them takes time."""
    kept = tuple(m for m in one.evidence.measurements if m.metric in _JUDGED)
    return Examined(one.evidence.model_copy(update={"measurements": kept}), one.arrays)
