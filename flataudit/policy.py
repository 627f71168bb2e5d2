"""What a team declares: the rule by which a challenger may replace a champion."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from flataudit.evidence import Record, canonical_digest

__all__ = ["Criterion", "NonInferiority", "Policy", "ScoreWeights"]


class NonInferiority(Record):
    """A challenger must not be worse than the champion by more than a margin, outside its error."""

    metric: str = "validation_accuracy"
    """Compared example by example."""
    margin: PositiveFloat = 0.005
    """In the metric's unit; half a point of accuracy by default."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the two-sided paired interval; every comparison of the audit uses it."""


class Criterion(Record):
    """A limit on one metric: absolute (`at_most`, `at_least`) or against the champion.

    >>> Criterion(metric="lambda_max", at_most=50).text
    'lambda_max at most 50'
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    no_worse_than: Literal["champion"] | None = None
    margin: NonNegativeFloat = 0.0
    """With `no_worse_than`: how much worse is still accepted, in the metric's unit."""
    on: Literal["interval", "estimate"] = "interval"
    """`interval`: the whole interval must satisfy the limit. `estimate`: the number alone, whatever its error."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        given = [name for name in ("at_most", "at_least", "no_worse_than") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of at_most, at_least, no_worse_than for {self.metric!r}, "
                f"got {' and '.join(given) or 'none'}; split it into one criterion for each limit"
            )
        if self.margin and not self.no_worse_than:
            raise ValueError(f"expected a margin only beside no_worse_than, got one for {self.metric!r}; remove it")
        return self

    @property
    def text(self) -> str:
        """The criterion as a person would say it."""
        if self.at_most is not None:
            return f"{self.metric} at most {self.at_most:g}"
        if self.at_least is not None:
            return f"{self.metric} at least {self.at_least:g}"
        return f"{self.metric} no worse than the champion's" + (f" by {self.margin:g}" if self.margin else "")


class ScoreWeights(Record):
    """Weights of the parts of the score; parts that an audit does not have are left out."""

    clean: NonNegativeFloat = 1.0
    """Correctness on the validation inputs."""
    corrupted: NonNegativeFloat = 1.0
    """Correctness under the graded corruptions."""
    weight_noise: NonNegativeFloat = 1.0
    """Correctness under relative Gaussian noise on the weights."""
    shifted: NonNegativeFloat = 1.0
    """Correctness on the labelled shifted sets."""
    agreement: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the whole that agreement on unlabelled target inputs gets, where they are given."""


class Policy(Record):
    """Not worse, within limits, and better: what a challenger must show to be promoted."""

    non_inferiority: NonInferiority = NonInferiority()
    criteria: tuple[Criterion, ...] = ()
    """All must pass, whoever wins."""
    band_width: NonNegativeFloat = 2.0
    """Challengers within this many standard errors (of the paired difference) of the best are tied."""
    tie_break: Literal["default"] | tuple[str, ...] | Mapping[str, PositiveFloat] = "default"
    """`default`: the score. A list of metrics: the first that tells them apart. Weights: the weighted mean rank."""
    score_lead: NonNegativeFloat = 0.005
    """Lead in score that replaces a champion of equal accuracy; half a point."""
    score_weights: ScoreWeights = ScoreWeights()
    first_promotion: Literal["allow", "require_criteria", "refuse"] = "require_criteria"
    """What happens while the name has no champion."""
    missing: Literal["fail", "inconclusive"] = "fail"
    """What a number that could not be measured does to a criterion; it never passes."""

    @property
    def digest(self) -> str:
        """``sha256:…`` of the policy; every decision names it."""
        return canonical_digest(self.model_dump(mode="json"))
