"""What a team declares: the rule by which a challenger may replace a champion."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, StringConstraints, model_validator

from flataudit.evidence import Record, canonical_digest
from flataudit.planning import alpha_of_decision

__all__ = ["Criterion", "Matching", "NonInferiority", "Policy", "ScoreWeights", "ValidationBudget", "Waiver"]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Unsettled = Literal["fail", "inconclusive"]


class NonInferiority(Record):
    """A challenger must not be worse than the champion by more than a margin, outside its error."""

    metric: str = "validation_accuracy"
    """Compared example by example."""
    margin: PositiveFloat = 0.005
    """In the metric's unit; half a point of accuracy by default."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the two-sided paired interval; every comparison of the audit uses it."""


class Criterion(Record):
    """A limit on one metric, or on each of a family: absolute (`at_most`, `at_least`) or against the champion.

    >>> Criterion(metric="lambda_max", at_most=50).text
    'lambda_max at most 50'
    >>> Criterion(metric="group_accuracy/*", at_least=0.8, min_examples=50).text
    'every group_accuracy/* of at least 50 examples at least 0.8'
    >>> Criterion(metric="latency_p95", no_worse_than="champion", relative_margin=0.1).text
    "latency_p95 no worse than the champion's by 10 %"
    """

    metric: str
    """Its name; ``group_accuracy/*`` or ``shift_accuracy/*`` means every one of them, and all must pass."""
    at_most: float | None = None
    at_least: float | None = None
    no_worse_than: Literal["champion"] | None = None
    margin: NonNegativeFloat = 0.0
    """With `no_worse_than`: how much worse is still accepted, in the metric's unit."""
    relative_margin: NonNegativeFloat = 0.0
    """With `no_worse_than`: how much worse is still accepted, as a share of the champion's estimate."""
    min_examples: PositiveInt = 1
    """Of a family: those with fewer examples are named and not judged."""
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
        if (self.margin or self.relative_margin) and not self.no_worse_than:
            raise ValueError(f"expected a margin only beside no_worse_than, got one for {self.metric!r}; remove it")
        if self.margin and self.relative_margin:
            raise ValueError(f"expected margin or relative_margin for {self.metric!r}, got both; keep one")
        if self.min_examples > 1 and not self.is_family:
            raise ValueError(f"expected min_examples only for a family such as group_accuracy/*, got {self.metric!r}")
        return self

    @property
    def is_family(self) -> bool:
        """Whether it is about every metric that begins alike."""
        return self.metric.endswith("/*")

    def covers(self, metric: str) -> bool:
        """Whether a metric is the one, or one of those, that it limits."""
        return metric.startswith(self.metric[:-1]) if self.is_family else metric == self.metric

    @property
    def text(self) -> str:
        """The criterion as a person would say it."""
        enough = f" of at least {self.min_examples} examples" if self.min_examples > 1 else ""
        subject = f"every {self.metric}{enough}" if self.is_family else self.metric
        if self.at_most is not None:
            return f"{subject} at most {self.at_most:g}"
        if self.at_least is not None:
            return f"{subject} at least {self.at_least:g}"
        by = f" by {self.margin:g}" if self.margin else ""
        by = f" by {100 * self.relative_margin:g} %" if self.relative_margin else by
        return f"{subject} no worse than the champion's{by}"


class Waiver(Record):
    """A criterion that a person lifts for a while: it is recorded with every decision that it touches."""

    metric: Text
    """Of the criterion, as the criterion writes it."""
    candidate: Text = "*"
    """Version (``8`` or ``v8``), or ``*`` for any."""
    who: Text
    why: Text
    until: date
    """The last day on which it holds, UTC."""

    def lifts(self, metric: str, candidate: str) -> bool:
        """Whether it is about this criterion on this candidate, expired or not."""
        return self.metric == metric and self.candidate in ("*", candidate, candidate.removeprefix("v"))

    @property
    def text(self) -> str:
        """Who lifted it, until when and why."""
        return f"waived by {self.who} until {self.until.isoformat()}: {self.why}"


class ValidationBudget(Record):
    """What one validation set may be asked: each decision on it spends some of α, and then it is used up.

    The t-th decision may be wrong with α_t = 6 α / (π² t²), which sum to α: whatever was learned from the earlier
    ones, all promotions on this set together are wrong with at most that chance.

    >>> [round(ValidationBudget().level(t), 4) for t in (1, 2, 10)]
    [0.0304, 0.0076, 0.0003]
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance that any promotion on one validation set is of a model that is not better."""
    decisions: PositiveInt = 10
    """After so many the set is used up."""
    exhausted: Literal["refuse", "warn"] = "refuse"
    """`refuse`: a used-up set shows no challenger to be better. `warn`: it goes on at the last level, and says so."""
    warn_before: PositiveInt = 3
    """A warning when no more decisions than these are left."""

    def level(self, decision: int) -> float:
        """α_t of the t-th decision, from 1 on; that of the last one ever after."""
        return alpha_of_decision(min(decision, self.decisions), self.alpha)


class Matching(Record):
    """When two candidates' flatness compares at all: equal loss, data and precision are asked for in any case."""

    training_loss_ratio: Annotated[float, Field(ge=1)] = 2.0
    """The larger training loss may be this many times the smaller: curvature shrinks with the loss itself."""
    normalisation: bool = True
    """Both or neither normalise by statistics that training gathered: batch norm inflates λ_max 2 to 5 times."""


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
    missing: Unsettled = "fail"
    """What a number that could not be measured does to a criterion; it never passes."""
    inconclusive: Unsettled = "inconclusive"
    """What a number that is too uncertain does; it never passes."""
    not_comparable: Literal["ignore", "fail", "inconclusive"] = "ignore"
    """What a criterion against the champion does where flatness is that of unmatched candidates, or where the metric
    applies to only one of the two kinds of model. `ignore`: the decision goes on without it, and says so. Every other
    metric that does not compare is inconclusive."""
    matching: Matching = Matching()
    clustered: bool = False
    """The validation examples of one group are not independent: paired intervals are those of whole groups."""
    validation_budget: ValidationBudget | None = ValidationBudget()
    """None: every decision is judged at 1 − `confidence`, as if it were the only one on its validation set."""
    waivers: tuple[Waiver, ...] = ()
    """Criteria that are lifted; non-inferiority cannot be."""
    code_bearing_parameters: Literal["accept", "refuse"] = "accept"
    """What becomes of numbers that need more of a model than answers (curvature, noise on weights), where the
    candidate's own code ran beside the probe and could have forged them. `accept`: they count, and are marked.
    `refuse`: they are no numbers."""

    @model_validator(mode="after")
    def _waivers_lift_something(self) -> Self:
        known = {criterion.metric for criterion in self.criteria}
        for waiver in self.waivers:
            if waiver.metric not in known:
                raise ValueError(
                    f"expected a waiver of one of the criteria ({', '.join(sorted(known)) or 'none'}), "
                    f"got {waiver.metric!r}; remove it, or write the metric as its criterion does"
                )
        return self

    @property
    def digest(self) -> str:
        """``sha256:…`` of the policy; every decision names it."""
        return canonical_digest(self.model_dump(mode="json"))
