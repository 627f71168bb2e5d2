"""From evidence to a decision: pure, so that the same records give the same decision for ever.

No clock, no I/O, no randomness, no dependence on the order of candidates. A verdict is one of four words;
what is unknown never passes. Statistics arrive finished, as `Comparison`s.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from flataudit.decision import Comparison, Decision, DecisionKind, Standing, Verdict, VerdictKind
from flataudit.evidence import Better, Evidence, Measurement, Outcome
from flataudit.planning import examples_for_non_inferiority, holm
from flataudit.policy import Criterion, Policy

__all__ = ["decide", "limits"]

_SMALLEST_GAP = 1e-6
"""Below it no number of examples is worth naming."""


def decide(
    policy: Policy, evidences: Sequence[Evidence], comparisons: Sequence[Comparison], *, champion: str | None = None
) -> Decision:
    """Judge every challenger by the policy and choose at most one.

    Args:
        policy: the declared rule.
        evidences: of the champion and all challengers, in any order.
        comparisons: of each pair, for the metrics that the policy names and for ``score``.
        champion: label of the champion; None while the name has none.

    A challenger is *eligible* when it is not inferior and satisfies all criteria, and *qualified* when it
    is also better: superior in accuracy, or ahead in score by `Policy.score_lead`, each with its paired lower
    bound above 0 (Holm over the challengers). The winner is the first by tie-break among the qualified that
    are tied with the most accurate of them. Tightening any limit only removes candidates from these sets.
    """
    table = {evidence.candidate.label: evidence for evidence in sorted(evidences, key=lambda e: e.candidate.label)}
    case = _Case(policy, table, comparisons, champion)
    verdicts = {label: case.verdicts(label) for label in case.challengers}
    eligible = [label for label in case.challengers if all(v.verdict == "pass" for v in verdicts[label])]
    better = case.superiority() if champion is not None else {}
    qualified = [label for label in eligible if champion is None or better[label].verdict == "pass"]
    if champion is None and policy.first_promotion == "refuse":
        qualified = []
    band = case.band(qualified or eligible)
    winner = band[0] if qualified else None
    standings = tuple(
        Standing(
            candidate=label,
            version=table[label].candidate.version,
            digest=table[label].candidate.digest,
            verdict=_standing(label, winner, verdicts[label], policy),
            verdicts=tuple(verdicts[label]) + ((better[label],) if label in better else ()),
            tied=label in band,
            rank=band.index(label) + 1 if label in band else None,
        )
        for label in case.challengers
    )
    kind = _overall(standings, case)
    needed = [v.n_needed for s in standings for v in s.verdicts if v.verdict == "inconclusive" and v.n_needed]
    accuracies = [case.estimate(label, policy.non_inferiority.metric) for label in band]
    return Decision(
        decision=kind,
        promoted=winner,
        champion=champion,
        why=_why(kind, winner, band, case),
        standings=standings,
        tied=tuple(band),
        random_choice=sum(a for a in accuracies if a is not None) / len(band) if band else None,
        n_needed=min(needed) if needed and kind != "promote" else None,
        policy_digest=policy.digest,
    )


def limits(policy: Policy, evidence: Evidence) -> tuple[Verdict, ...]:
    """The absolute limits alone, on one candidate: what a scheduled audit watches."""
    label = evidence.candidate.label
    case = _Case(policy, {label: evidence}, (), None)
    absolute = [case.criterion(label, c) for c in policy.criteria if not c.no_worse_than]
    return (case.measured(label, policy.non_inferiority.metric), *absolute)


def _standing(label: str, winner: str | None, verdicts: Iterable[Verdict], policy: Policy) -> DecisionKind:
    words = {verdict.verdict for verdict in verdicts}
    if "fail" in words or ("missing" in words and policy.missing == "fail"):
        return "reject"
    if words != {"pass"}:
        return "inconclusive"
    return "promote" if label == winner else "hold"


def _overall(standings: Sequence[Standing], case: "_Case") -> DecisionKind:
    """The best that any challenger reached; inconclusive where nothing at all was measured."""
    reached = {standing.verdict for standing in standings}
    if not case.anything_measured():
        return "inconclusive"
    order: tuple[DecisionKind, ...] = ("promote", "hold", "inconclusive", "reject")
    return next((kind for kind in order if kind in reached), "hold")


def _why(kind: DecisionKind, winner: str | None, band: Sequence[str], case: "_Case") -> str:
    tied = f" It was tied with {', '.join(band[1:])} and won the tie-break." if len(band) > 1 else ""
    if winner is not None and case.champion is None:
        return f"{winner} is the first champion: the policy allows it ({case.policy.first_promotion}).{tied}"
    if winner is not None:
        return f"{winner} is not worse than {case.champion}, within all limits, and better.{tied}"
    if not case.challengers:
        return f"There is no challenger; {case.champion or 'no model'} stays."
    if not case.anything_measured():
        return "Nothing could be measured, so nothing is decided."
    if kind == "hold" and case.champion is None:
        return "The policy refuses a first promotion; a person has to set the alias."
    return {
        "hold": f"No challenger is shown to be better than {case.champion}, which stays.",
        "inconclusive": "The data cannot tell whether a challenger satisfies the policy.",
        "reject": "Every challenger fails the policy.",
        "promote": "",
    }[kind]


class _Case:
    """The records of one decision, looked up by candidate and metric."""

    def __init__(
        self,
        policy: Policy,
        table: Mapping[str, Evidence],
        comparisons: Sequence[Comparison],
        champion: str | None,
    ) -> None:
        self.policy, self.table, self.champion = policy, table, champion
        self.challengers = [label for label in table if label != champion]
        self._pairs = {(c.metric, c.champion, c.challenger): c for c in comparisons}

    def measurement(self, label: str, metric: str) -> Measurement | None:
        evidence = self.table.get(label)
        return evidence.get(metric) if evidence else None

    def estimate(self, label: str, metric: str) -> float | None:
        found = self.measurement(label, metric)
        return found.estimate if found and found.outcome is Outcome.MEASURED else None

    def pair(self, metric: str, champion: str, challenger: str) -> Comparison | None:
        direct = self._pairs.get((metric, champion, challenger))
        mirrored = self._pairs.get((metric, challenger, champion))
        return direct or (mirrored.reversed() if mirrored else None)

    def anything_measured(self) -> bool:
        metric = self.policy.non_inferiority.metric
        subjects = self.challengers if self.champion is None else [self.champion]
        return any(self.estimate(label, metric) is not None for label in subjects)

    # ── Verdicts ──

    def verdicts(self, label: str) -> list[Verdict]:
        rule = self.policy.non_inferiority
        limits = [c for c in self.policy.criteria if self.champion is not None or not c.no_worse_than]
        if self.champion is None and self.policy.first_promotion == "allow":
            limits = []
        first = (
            self.measured(label, rule.metric)
            if self.champion is None
            else self._against_champion(
                label, rule.metric, rule.margin, f"{rule.metric} not inferior by {rule.margin:g}"
            )
        )
        return [first] + [self.criterion(label, criterion) for criterion in limits]

    def measured(self, label: str, metric: str) -> Verdict:
        estimate = self.estimate(label, metric)
        if estimate is None:
            return self._missing(label, metric, f"{metric} measured")
        return _verdict(label, metric, f"{metric} measured", "pass", f"{metric} is {estimate:.4g}")

    def criterion(self, label: str, criterion: Criterion) -> Verdict:
        if criterion.no_worse_than:
            return self._against_champion(label, criterion.metric, criterion.margin, criterion.text, on=criterion.on)
        found = self.measurement(label, criterion.metric)
        if found is None or found.outcome is not Outcome.MEASURED:
            return self._missing(label, criterion.metric, criterion.text)
        return _absolute(label, criterion, found)

    def _missing(self, label: str, metric: str, text: str) -> Verdict:
        found = self.measurement(label, metric)
        why = f"{metric} has no number: {found.outcome}, {found.reason}" if found else f"{metric} was not measured"
        return _verdict(label, metric, text, "missing", why)

    def _against_champion(
        self, label: str, metric: str, margin: float, text: str, on: Literal["interval", "estimate"] = "interval"
    ) -> Verdict:
        assert self.champion is not None
        if self.estimate(label, metric) is None:
            return self._missing(label, metric, text)
        pair = self.pair(metric, self.champion, label)
        interval = pair.gain_interval if pair else None
        if pair and on == "estimate" and pair.gain is not None:
            interval = (pair.gain, pair.gain)
        if pair is None or interval is None:
            reason = (pair.reason if pair else None) or f"{metric} was not compared with the champion's"
            return _verdict(label, metric, text, "inconclusive", f"not comparable: {reason}")
        why = f"gain {_signed(pair.gain)} [{_signed(interval[0])}, {_signed(interval[1])}] over {self.champion}"
        if interval[0] > -margin or interval == (-margin, -margin):
            return _verdict(label, metric, text, "pass", why)
        if interval[1] < -margin:
            return _verdict(label, metric, text, "fail", f"worse than allowed: {why}")
        return _verdict(label, metric, text, "inconclusive", why, _examples(pair, margin))

    def superiority(self) -> dict[str, Verdict]:
        """For each challenger: superior in accuracy, or ahead in score; Holm over all challengers."""
        rule = self.policy.non_inferiority
        passed: dict[str, str] = {}
        told: dict[str, list[str]] = {}
        for metric, lead in ((rule.metric, 0.0), ("score", self.policy.score_lead)):
            pairs = {label: self.pair(metric, self.champion or "", label) for label in self.challengers}
            adjusted = holm({k: p.p_value for k, p in pairs.items() if p and p.p_value is not None})
            for label, pair in pairs.items():
                told.setdefault(label, []).append(_gain_text(metric, pair))
                if pair and _ahead(pair, lead, adjusted.get(label), 1 - rule.confidence):
                    passed.setdefault(label, metric)
        text = f"better than the champion in {rule.metric}, or in score by {self.policy.score_lead:g}"
        verdicts = {}
        for label in self.challengers:
            score = self.pair("score", self.champion or "", label)
            kind: VerdictKind = "pass" if label in passed else "inconclusive"
            needed = _examples(score, 0.0) if score and kind != "pass" and (score.gain or 0) > 0 else None
            verdicts[label] = _verdict(label, passed.get(label, "score"), text, kind, "; ".join(told[label]), needed)
        return verdicts

    # ── Ranking ──

    def band(self, pool: Sequence[str]) -> list[str]:
        """The pool's members tied with its most accurate, first by tie-break first."""
        metric = self.policy.non_inferiority.metric
        if not pool:
            return []
        better: Better = next((m.better for label in pool if (m := self.measurement(label, metric))), "higher")
        best = min(pool, key=lambda label: (_oriented(self.estimate(label, metric), better), label))
        tied = [label for label in pool if label == best or self._tied(metric, best, label)]
        return sorted(tied, key=self._tie_break(tied))

    def _tied(self, metric: str, best: str, label: str) -> bool:
        pair = self.pair(metric, best, label)
        if pair is None or pair.difference is None or pair.standard_error is None:
            return False
        return abs(pair.difference) <= self.policy.band_width * pair.standard_error

    def _tie_break(self, pool: Sequence[str]) -> Callable[[str], tuple[object, ...]]:
        rule = self.policy.tie_break
        if isinstance(rule, Mapping):
            ranks = {metric: self._ranks(metric, pool) for metric in rule}
            total = sum(rule.values())
            return lambda label: (sum(rule[m] * ranks[m][label] for m in rule) / total, label)
        metrics = ("score",) if rule == "default" else rule
        return lambda label: (*(self._key(label, metric) for metric in metrics), label)

    def _key(self, label: str, metric: str) -> float:
        found = self.measurement(label, metric)
        return _oriented(self.estimate(label, metric), found.better if found else "higher")

    def _ranks(self, metric: str, pool: Sequence[str]) -> dict[str, float]:
        keys = {label: self._key(label, metric) for label in pool}
        return {a: sum(keys[b] < keys[a] for b in pool) + sum(keys[b] == keys[a] for b in pool) / 2 for a in pool}


def _verdict(
    label: str, metric: str, criterion: str, verdict: VerdictKind, why: str, n_needed: int | None = None
) -> Verdict:
    return Verdict(candidate=label, metric=metric, criterion=criterion, verdict=verdict, why=why, n_needed=n_needed)


def _absolute(label: str, criterion: Criterion, found: Measurement) -> Verdict:
    assert found.estimate is not None
    limits = (found.estimate, found.estimate) if criterion.on == "estimate" else _limits(found)
    if limits is None:
        why = f"{found.estimate:.4g} with an unknown error; write `on: estimate` to accept the number alone"
        return _verdict(label, criterion.metric, criterion.text, "inconclusive", why)
    low, high = limits
    limit = criterion.at_most if criterion.at_most is not None else criterion.at_least
    assert limit is not None
    passes, fails = (high <= limit, low > limit) if criterion.at_most is not None else (low >= limit, high < limit)
    kind: VerdictKind = "pass" if passes else "fail" if fails else "inconclusive"
    why = f"{found.estimate:.4g} in [{low:.4g}, {high:.4g}]"
    if kind == "inconclusive" and found.bound != "estimate" and found.interval is None:
        why += f", a {found.bound} bound; write `on: estimate` to accept the bound itself"
    gap, half = abs(limit - found.estimate), (high - low) / 2
    settles = kind == "inconclusive" and found.n and 0 < gap and half < float("inf")
    return _verdict(
        label,
        criterion.metric,
        criterion.text,
        kind,
        why,
        int(found.n * (half / gap) ** 2) + 1 if settles and found.n else None,
    )


def _limits(found: Measurement) -> tuple[float, float] | None:
    """The interval; of a bound without one, the side that it does not bound is open."""
    if found.interval is not None or found.bound == "estimate" or found.estimate is None:
        return found.limits
    return (found.estimate, float("inf")) if found.bound == "lower" else (float("-inf"), found.estimate)


def _ahead(pair: Comparison, lead: float, p_adjusted: float | None, alpha: float) -> bool:
    interval = pair.gain_interval
    if pair.gain is None or interval is None or p_adjusted is None:
        return False
    return pair.gain >= lead and interval[0] > 0 and p_adjusted <= alpha


def _examples(pair: Comparison, margin: float) -> int | None:
    """Examples that would settle the comparison if the observed difference is the true one."""
    if pair.n is None or not pair.standard_error or pair.gain is None or pair.gain + margin < _SMALLEST_GAP:
        return None
    return examples_for_non_inferiority(
        margin, pair.standard_error**2 * pair.n, difference=pair.gain, confidence=pair.confidence
    )


def _gain_text(metric: str, pair: Comparison | None) -> str:
    if pair is None or pair.gain is None:
        return f"{metric}: {(pair.reason if pair else None) or 'not compared'}"
    interval = pair.gain_interval
    limits = f" [{_signed(interval[0])}, {_signed(interval[1])}]" if interval else ""
    return f"{metric} gain {_signed(pair.gain)}{limits}"


def _oriented(estimate: float | None, better: Better) -> float:
    """A key that sorts the better first and the unmeasured last."""
    if estimate is None:
        return float("inf")
    return -estimate if better == "higher" else estimate


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.4f}"
