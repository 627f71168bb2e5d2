"""What was compared and what was decided, as records; `flataudit.judge` makes the decision."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from flataudit.evidence import Better, Interval, Record

__all__ = [
    "Comparison",
    "Decision",
    "DecisionKind",
    "Pick",
    "Selection",
    "Standing",
    "Stopping",
    "Verdict",
    "VerdictKind",
]

VerdictKind = Literal["pass", "fail", "inconclusive", "missing", "not_comparable"]
DecisionKind = Literal["promote", "hold", "reject", "inconclusive"]


class Comparison(Record):
    """One metric of two candidates, paired: challenger minus champion."""

    metric: str
    champion: str
    """Label of the reference candidate (the champion, or another challenger)."""
    challenger: str
    better: Better = "higher"
    difference: float | None = None
    """Challenger minus champion, in the metric's unit; None where they do not compare."""
    standard_error: NonNegativeFloat | None = None
    interval: Interval | None = None
    confidence: float = 0.95
    p_value: Annotated[float, Field(ge=0, le=1)] | None = None
    """Two-sided, of no difference."""
    n: int | None = None
    """Paired examples."""
    method: str = ""
    """Name of the interval (``Tango 1998``)."""
    reason: str | None = None
    """Why the two do not compare."""
    matched: bool = True
    """False: flatness of candidates that are not alike enough for it to mean anything; the reason says how."""

    def reversed(self) -> "Comparison":
        """The same comparison seen from the other side."""
        return self.model_copy(
            update={
                "champion": self.challenger,
                "challenger": self.champion,
                "difference": None if self.difference is None else -self.difference,
                "interval": None if self.interval is None else (-self.interval[1], -self.interval[0]),
            }
        )

    @property
    def gain(self) -> float | None:
        """How much better the challenger is: positive is better, whatever the metric's direction."""
        if self.difference is None or self.better == "neither":
            return None
        return self.difference if self.better == "higher" else -self.difference

    @property
    def gain_interval(self) -> Interval | None:
        """Interval of `gain`."""
        if self.interval is None or self.better == "neither":
            return None
        return self.interval if self.better == "higher" else (-self.interval[1], -self.interval[0])


class Pick(Record):
    """A checkpoint that a rule chose."""

    candidate: str
    """Its label."""
    step: int
    """Of training."""
    value: float
    """In the policy's metric."""
    score: float | None = None


class Stopping(Record):
    """Early stopping of one run, by two rules."""

    run_id: str
    metric: str
    by_metric: Pick
    """The best in the metric; the earliest of several."""
    by_score: Pick
    """First by the policy's tie-break, among those that are tied with the best."""
    tied: tuple[str, ...]
    """Labels of those, by step."""
    of: int
    """Checkpoints with a number in the metric."""
    difference: Comparison | None = None
    """The score's pick minus the metric's, in the metric; None where they are one."""

    @property
    def told(self) -> str:
        """Both in one sentence."""
        first, other = self.by_metric, self.by_score
        start = f"Early stopping by {self.metric}: step {first.step} ({first.value:.4g})"
        if first.candidate == other.candidate:
            return f"{start}; by score the same, among {len(self.tied)} of {self.of} checkpoints tied with it."
        gap = self.difference
        told = ""
        if gap is not None and gap.difference is not None and gap.interval is not None:
            told = f", a difference of {gap.difference:+.4f} [{gap.interval[0]:+.4f}, {gap.interval[1]:+.4f}]"
        tied = f"among {len(self.tied)} of {self.of} checkpoints tied with it"
        return f"{start}; by score: step {other.step} ({other.value:.4g}), {tied}{told}."


class Selection(Record):
    """What choosing the best of several does to its number, and who else may be the best."""

    metric: str
    best: str
    """Label of the candidate with the best estimate, champion and challengers alike."""
    of: int
    """Candidates among which it is the best."""
    observed: float
    corrected: float
    """Median-unbiased, given that it won (Andrews, Kitagawa & McCloskey 2024); the best of many is lucky too."""
    interval: Interval
    confidence: float = 0.95
    confidence_set: tuple[str, ...]
    """Labels of those that no other is significantly better than; holds the truly best at this confidence."""


class Verdict(Record):
    """One criterion on one candidate."""

    candidate: str
    criterion: str
    """In the words of the policy."""
    metric: str
    verdict: VerdictKind
    why: str
    n_needed: int | None = None
    """Validation examples that would settle an inconclusive verdict, at the observed difference."""
    waived: str | None = None
    """Who lifted the criterion, until when and why; the verdict stays what it is and no longer counts."""

    @property
    def word(self) -> str:
        """How it reads: ``waived`` where a person lifted it, ``not comparable`` with a space."""
        return "waived" if self.waived else self.verdict.replace("_", " ")

    @property
    def told(self) -> str:
        """`why`, and who waived it."""
        return f"{self.why}; {self.waived}" if self.waived else self.why


class Standing(Record):
    """Where one challenger ended."""

    candidate: str
    version: str | None
    digest: str | None
    verdict: DecisionKind
    verdicts: tuple[Verdict, ...]
    tied: bool = False
    """Within the band of the best; the tie-break chose among these."""
    rank: int | None = None
    """Among the tied, by the tie-break."""


class Decision(Record):
    """What becomes of the champion alias, and why."""

    decision: DecisionKind
    promoted: str | None = None
    """Label of the challenger that is promoted."""
    champion: str | None = None
    """Label of the champion that was compared."""
    why: str
    standings: tuple[Standing, ...]
    tied: tuple[str, ...] = ()
    random_choice: float | None = None
    """Mean of the non-inferiority metric over the tied: what a blind choice among them would give."""
    n_needed: int | None = None
    """Smallest number of validation examples that would settle an open question."""
    validation_use: int | None = None
    """Which decision on this validation set it is, from 1 on; None: the policy keeps no account."""
    alpha: float | None = None
    """Level at which a challenger had to be better: the share of the validation budget that this decision spent."""
    warnings: tuple[str, ...] = ()
    """What a person should act on: a validation set that is nearly used up, a waiver about to expire."""
    policy_digest: str

    @property
    def unregistered(self) -> str | None:
        """Label of the winner where it is no registered version (a model of a run): no alias can point to it."""
        winner = next((one for one in self.standings if one.candidate == self.promoted), None)
        return winner.candidate if winner is not None and winner.version is None else None

    @property
    def outcome(self) -> DecisionKind:
        """What becomes of the alias, as the ledger has it: a winner that is no registered version is held."""
        return "hold" if self.decision == "promote" and self.unregistered is not None else self.decision

    def outcome_of(self, standing: Standing) -> DecisionKind:
        """The same of one challenger."""
        return "hold" if standing.candidate == self.unregistered else standing.verdict
