"""The score: one number a candidate, in accuracy points, with an interval; the mean chance of being right.

Averaged with declared weights over (a) clean validation inputs, (b) corrupted ones, (c) noisy weights, (d) labelled
shifted sets and (e) agreement with the other candidates on unlabelled inputs. Each part is a mean over examples, so
that two candidates pair example by example: parts on the validation examples share one resampling, other sets are
resampled independently of them. The score protects against a fragile champion; it is not a better ranking.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from scipy.special import stdtr, stdtrit

from flataudit.evidence import Array, Examined, Measurement, Metric, Outcome
from flataudit.policy import ScoreWeights
from flataudit.statistics.clusters import clustered_difference
from flataudit.statistics.means import bounded_mean
from flataudit.statistics.paired import ROUNDING, Difference, bca_interval, bootstrap_means, bootstrapped, no_variance
from flataudit.statistics.samples import array, measured, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SCORE", "Part", "Sample", "clustered", "difference", "parts", "replicates", "sample", "scored"]

VALIDATION = "validation"
SCORE = Metric(
    name="score",
    unit="accuracy",
    better="higher",
    description="Weighted mean chance of being right: clean, corrupted, shifted inputs, noisy weights, agreement.",
)


@dataclass(frozen=True)
class Part:
    """A part of the score that this audit uses."""

    name: str
    """``clean``, ``corrupted``, ``weight_noise``, ``shifted`` or ``agreement``."""
    subject: str
    """The set whose examples are resampled."""
    metric: str
    weight: float
    """All parts of an audit sum to 1."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The score of one candidate as a sum of means over independent sets of examples."""

    values: Mapping[str, "NDArray[np.float64]"]
    """By set: ``(n,)`` weighted sums of the parts; the score is the sum of their means."""
    means: Mapping[str, float]
    """By part: the mean of its sets."""

    @property
    def estimate(self) -> float:
        """The score."""
        return float(sum(v.mean() for v in self.values.values()))

    @property
    def influence(self) -> "NDArray[np.float64]":
        """Of each example of each set on the score."""
        return np.concatenate([(v - v.mean()) / len(v) for _, v in sorted(self.values.items())])

    @property
    def n(self) -> int:
        """Examples of the validation set, or of the smallest other."""
        lengths = {name: len(v) for name, v in self.values.items()}
        return lengths.get(VALIDATION, min(lengths.values()))


def parts(examined: Sequence[Examined], weights: ScoreWeights) -> tuple[Part, ...]:
    """The parts that at least one candidate measured, for all candidates alike, with weights that sum to 1.

    One that does not apply to the kind of any of the models is no part for all of them. Without any part but agreement
    there is none: agreement alone says nothing about being right.
    """
    found = [(*key, getattr(weights, key[0])) for key in _measured_parts(examined)]
    total = sum({name: weight for name, _, _, weight in found if name != "agreement"}.values())
    if total <= 0:
        return ()
    agreement = weights.agreement if any(name == "agreement" for name, *_ in found) else 0.0
    sets = [name for name, *_ in found]

    def share(name: str, weight: float) -> float:
        whole = agreement if name == "agreement" else (1 - agreement) * weight / total
        return whole / sets.count(name)

    return tuple(Part(name, subject, metric, share(name, weight)) for name, subject, metric, weight in found if weight)


def sample(one: Examined, used: Sequence[Part]) -> Sample | str:
    """The candidate's score before its error, or why it has none: a used part that it lacks is not good."""
    summed: dict[str, NDArray[np.float64]] = {}
    means: dict[str, float] = {}
    for part in used:
        found = _part_values(one, part.metric)
        if isinstance(found, str):
            return found
        if part.subject in summed and len(summed[part.subject]) != len(found):
            return f"{part.metric} has {len(found)} examples where the others have {len(summed[part.subject])}"
        summed[part.subject] = summed.get(part.subject, 0.0) + part.weight * found
        share = part.weight / sum(p.weight for p in used if p.name == part.name)
        means[part.name] = means.get(part.name, 0.0) + share * float(found.mean())
    return Sample(summed, means)


def replicates(samples: Mapping[str, Sample], count: int, seed: int) -> Mapping[str, "NDArray[np.float64]"]:
    """``(R,)`` bootstrap scores by candidate; all candidates see the same resampled examples of each set."""
    scores = {label: np.zeros(count) for label in samples}
    shapes = {(name, len(v)) for one in samples.values() for name, v in one.values.items()}
    for name, n in sorted(shapes):
        labels = [k for k, one in samples.items() if name in one.values and len(one.values[name]) == n]
        columns = np.stack([samples[label].values[name] for label in labels], axis=1)
        means = bootstrap_means(columns, count, np.random.default_rng([seed, crc32(name.encode())]))
        for label, column in zip(labels, means.T, strict=True):
            scores[label] += column
    return scores


def scored(one: Examined, used: Sequence[Part], resampled: "NDArray[np.float64] | None", confidence: float) -> Examined:
    """The candidate with its measurement ``score`` and, where it has validation parts, the array ``score``."""
    found = sample(one, used) if used else "no part of the score was measured by any candidate"
    if isinstance(found, str) or resampled is None:
        advice = None if used else "list the probes accuracy, corruption and weight_noise"
        return _with(one, SCORE.missing(Outcome.NOT_APPLICABLE, str(found), advice))
    error, interval = _error(found, resampled, confidence)
    own = found.values.get(VALIDATION)
    weight = sum(part.weight for part in used if part.subject == VALIDATION)
    measurement = SCORE.measured(
        found.estimate,
        standard_error=error,
        interval=interval,
        confidence=confidence,
        n=found.n,
        samples="score" if len(found.values) == 1 and own is not None else None,
        details={**found.means, **_explained(one, used)},
    )
    return _with(one, measurement, {} if own is None else {"score": Array.pack(own / weight)})


def difference(
    first: Sample, second: Sample, resampled: "NDArray[np.float64]", *, confidence: float = 0.95
) -> Difference:
    """Second score minus first, with the BCa interval of shared ``(R,)`` resampled differences."""
    gap, influence = second.estimate - first.estimate, second.influence - first.influence
    if float(np.abs(influence).max()) <= ROUNDING / first.n:
        return no_variance(gap, min(len(v) for v in first.values.values()), confidence=confidence)
    return bootstrapped(gap, influence, resampled, n=first.n, confidence=confidence)


def clustered(
    first: Sample, second: Sample, groups: "NDArray[np.generic]", *, confidence: float, replicates: int, seed: int
) -> Difference | None:
    """Second score minus first where validation examples come in groups; None where they are no part of the score.

    The validation part as `flataudit.statistics.clusters` has it; the errors of the other sets, which are independent
    of it, are added, with Student's interval at one degree of freedom fewer than there are groups.
    """
    one, other = first.values.get(VALIDATION), second.values.get(VALIDATION)
    if one is None or other is None or len(one) != len(groups) or len(one) != len(other):
        return None
    main = clustered_difference(one, other, groups, confidence=confidence, replicates=replicates, seed=seed)
    changes = [second.values[name] - v for name, v in sorted(first.values.items()) if name != VALIDATION]
    gap = main.difference + sum(float(change.mean()) for change in changes)
    if not changes:
        return main
    if main.standard_error is None:
        return Difference(gap, None, None, None, main.n, main.method, main.reason or "the groups do not vary")
    error = math.sqrt(main.standard_error**2 + sum(float(change.var()) / len(change) for change in changes))
    freedom = len(np.unique(groups)) - 1
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(gap) / error))
    return Difference(gap, error, (gap - half, gap + half), p_value, main.n, f"{main.method}, other sets added")


def _error(
    found: Sample, resampled: "NDArray[np.float64]", confidence: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Standard error and BCa interval; Wilson's at the smallest set where nothing varies."""
    error = float(np.std(resampled, ddof=1))
    if error > ROUNDING:
        low, high = bca_interval(resampled, found.estimate, found.influence, confidence=confidence)
        return error, (low, high)
    constant = np.full(min(len(v) for v in found.values.values()), min(1.0, max(0.0, found.estimate)))
    bound = bounded_mean(constant, confidence=confidence)
    return bound.standard_error, bound.interval


def _measured_parts(examined: Sequence[Examined]) -> Iterator[tuple[str, str, str]]:
    """``(part, set, metric)`` of every part that some candidate measured, in a fixed order."""
    names = {m.metric for one in examined for m in one.evidence.measurements if measured(one, m.metric)}
    names -= _of_other_kinds(examined)
    clean = next((m for m in ("validation_accuracy", "validation_r2") if m in names), None)
    yield from [("clean", VALIDATION, clean)] if clean else []
    yield from [("corrupted", VALIDATION, m) for m in ("corruption_accuracy",) if m in names]
    yield from [("weight_noise", VALIDATION, m) for m in ("weight_noise_accuracy",) if m in names]
    for part, prefix in (("shifted", "shift_accuracy/"), ("agreement", "agreement/")):
        yield from ((part, f"{part}/{m.removeprefix(prefix)}", m) for m in sorted(names) if m.startswith(prefix))


def _of_other_kinds(examined: Sequence[Examined]) -> set[str]:
    """Parts that do not apply to the kind of one of the models: they compare on the others.

    A forest has no weights to shake. Only candidates that may be as accurate as the best have a say in it: a decoy of
    another kind must not change who wins.
    """
    heard = _best(examined)
    return {m.metric for one in heard for m in one.evidence.measurements if m.outcome is Outcome.NOT_APPLICABLE}


def _best(examined: Sequence[Examined]) -> list[Examined]:
    """Those whose interval of accuracy reaches that of the best."""
    limits = {}
    for one in examined:
        found = measured(one, "validation_accuracy") or measured(one, "validation_r2")
        if found is not None and found.limits is not None:
            limits[id(one)] = found.limits
    least = max((low for low, _ in limits.values()), default=0.0)
    return [one for one in examined if id(one) in limits and limits[id(one)][1] >= least]


def _part_values(one: Examined, metric: str) -> "NDArray[np.float64] | str":
    found = one.evidence.get(metric)
    if found is None or found.outcome is not Outcome.MEASURED:
        return f"{metric} has no number" + (f": {found.outcome}, {found.reason}" if found else "")
    kept = array(one, "validation_skill") if metric == "validation_r2" else values(one, metric)
    kept = None if kept is None else np.asarray(kept, dtype=np.float64)
    if kept is None or kept.ndim != 1 or not bool(((kept >= -1e-9) & (kept <= 1 + 1e-9)).all()):
        return f"{metric} has no values in [0, 1] for each example"
    return kept


def _explained(one: Examined, used: Sequence[Part]) -> dict[str, str]:
    """Weights in words, and why agreement was left out."""
    weights: dict[str, float] = {}
    for part in used:
        weights[part.name] = weights.get(part.name, 0.0) + part.weight
    told = {"weights": ", ".join(f"{k} {_fraction(w)}" for k, w in weights.items())}
    absent = [m for m in one.evidence.measurements if m.metric.startswith("agreement/") and m.reason]
    if "agreement" not in weights and absent:
        told["left_out"] = f"agreement: {absent[0].reason}"
    return told


def _fraction(weight: float) -> str:
    near = Fraction(weight).limit_denominator(60)
    return str(near) if math.isclose(near, weight, rel_tol=1e-9) else f"{weight:.3g}"


def _with(one: Examined, measurement: Measurement, arrays: Mapping[str, Array] | None = None) -> Examined:
    return Examined(one.evidence.with_measurements([measurement]), {**one.arrays, **(arrays or {})})
