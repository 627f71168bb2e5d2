"""Synthetic audits for the tests of reports: real policies, comparisons and decisions over invented numbers."""

import math
import random
from collections.abc import Mapping, Sequence

from flataudit.audit import AuditPlan, AuditRecord, DataSummary
from flataudit.contracts import Receipt
from flataudit.decision import Comparison
from flataudit.evidence import Array, AuditProtocol, Candidate, Cost, Evidence, Measurement, Metric, Outcome
from flataudit.judge import decide, limits
from flataudit.policy import Criterion, Policy
from flataudit.specs import DataSpec, Spec

N = 1797
HOSTILE = "<script>alert('name')</script>|`x`\n\x1b[2J\u202egnp\u200b <img src=x onerror=alert(1)> [red]not red[/red]"
METRICS = {
    "validation_accuracy": ("accuracy", "higher"),
    "validation_loss": ("accuracy", "lower"),
    "calibration_error": ("calibration", "lower"),
    "calibration_error_debiased": ("calibration", "lower"),
    "calibration_null_p95": ("calibration", "neither"),
    "hessian_trace": ("hessian_trace", "lower"),
    "lambda_max": ("spectrum", "lower"),
    "sharpness_l2": ("sharpness", "lower"),
    "weight_noise_accuracy": ("weight_noise", "higher"),
    "input_gradient_norm": ("input_gradient", "lower"),
    "corruption_accuracy": ("corruption", "higher"),
    "shift_accuracy/autumn": ("shift", "higher"),
    "agreement/last-week": ("unlabelled", "higher"),
}
POLICY = Policy(
    criteria=(
        Criterion(metric="calibration_error_debiased", at_most=0.05),
        Criterion(metric="corruption_accuracy", no_worse_than="champion", margin=0.01),
        Criterion(metric="lambda_max", at_most=60, on="estimate"),
    )
)
Arrays = dict[str, dict[str, Array]]


def accuracy_of(version: int) -> float:
    """Accuracies of versions 7 to 14, the champion first."""
    return {7: 0.9644, 8: 0.9738, 9: 0.9662, 10: 0.9733, 11: 0.9516, 12: 0.9627, 13: 0.9733, 14: 0.9}[version]


def candidate(version: int, title: str | None = None) -> Candidate:
    return Candidate(
        name="digits",
        version=str(version),
        run_id=f"{version:032x}",
        model_id=f"m-{version:032x}",
        flavour="pytorch",
        uri=f"models:/digits/{version}",
        digest=f"sha256:{version:064x}",
        title=title,
    )


def protocol(seed: int = 0) -> AuditProtocol:
    return AuditProtocol(
        probes=("accuracy@1{}", 'hessian_trace@1{"relative_error":0.01}', 'corruption@1{"kinds":["noise","blur"]}'),
        data={"validation": "sha256:" + "ab" * 32, "train": "sha256:" + "cd" * 32},
        seed=seed,
        dtype="float32",
        device="cpu",
        libraries={"python": "3.11.9", "torch": "2.6.0", "numpy": "2.4.6"},
    )


def value_of(metric: str, accuracy: float, version: int) -> tuple[float, float]:
    """An invented estimate and standard error."""
    if metric in ("validation_accuracy", "shift_accuracy/autumn", "corruption_accuracy", "weight_noise_accuracy"):
        share = accuracy - {"v": 0.0, "s": 0.06, "c": 0.11, "w": 0.02}[metric[0]]
        return share, math.sqrt(share * (1 - share) / N)
    return {
        "validation_loss": (0.4 * (1 - accuracy) / 0.03 * 0.2, 0.004),
        "calibration_error": (0.021, 0.003),
        "calibration_error_debiased": (0.012 + 0.036 * (version == 12), 0.003),
        "calibration_null_p95": (0.018, 0.0),
        "hessian_trace": (310.0 + 55 * (version % 5), 2.4),
        "lambda_max": (31.0 + 3 * (version % 7) + 60 * (version == 11), 0.0),
        "sharpness_l2": (0.21 + 0.02 * (version % 3), 0.004),
        "input_gradient_norm": (1.9, 0.03),
        "agreement/last-week": (0.948, 0.006),
    }[metric]


def measured(metric: str, accuracy: float, version: int) -> Measurement:
    probe, better = METRICS[metric]
    estimate, error = value_of(metric, accuracy, version)
    details: dict[str, float | str | None] = {}
    if metric == "corruption_accuracy":
        details = {"kinds": "noise,blur,<b>pixelate</b>", "severities": "1,3,5"}
    lower = metric == "lambda_max" and version == 9
    return Metric(name=metric, better=better, unit="loss/parameter²" if "hessian" in metric else "1").measured(
        estimate,
        probe=probe,
        standard_error=None if metric == "sharpness_l2" else error,
        interval=(estimate - 1.96 * error, estimate + 1.96 * error) if error and metric != "sharpness_l2" else None,
        bound="lower" if lower else "estimate",
        n=N,
        details=details,
        cost=Cost(
            forward=1.0 + 0.1 * (version % 3),
            backward=0.5,
            matvecs=12.0 if probe == "hessian_trace" else 0.0,
            seconds=0.4 + 3.1 * (probe in ("hessian_trace", "spectrum")),
            peak_bytes=17 * 2**20,
        ),
    )


def score_of(accuracy: float, version: int) -> Measurement:
    value = accuracy - 0.05 + 0.013 * (version == 8)
    return Metric(name="score", better="higher").measured(
        value,
        standard_error=0.004,
        interval=(value - 0.008, value + 0.008),
        n=N,
        details={"clean": accuracy, "corrupted": accuracy - 0.11, "weight_noise": accuracy - 0.02},
    )


def evidence(version: int, *, title: str | None = None) -> Evidence:
    """A candidate's evidence: version 13 ran out of budget, version 14 cannot be loaded."""
    who, accuracy = candidate(version, title), accuracy_of(version)
    if version == 14:
        reason = f"cannot be loaded: UnpicklingError: {HOSTILE}"
        found = [_missing(metric, Outcome.FAILED, reason, "log it with export_model=True") for metric in METRICS]
        return Evidence(candidate=who, protocol=protocol(), measurements=tuple(found))
    spent = {"lambda_max", "sharpness_l2", "corruption_accuracy"} if version == 13 else set()
    reason = "the candidate's budget (150 passes, 900 s) was used up before"
    found = [
        _missing(metric, Outcome.OVER_BUDGET, reason, "raise budget.passes or budget.seconds")
        if metric in spent
        else measured(metric, accuracy, version)
        for metric in METRICS
    ]
    return Evidence(
        candidate=who,
        protocol=protocol(),
        trust="data_only",
        isolation={"env": "enforced", "net": "enforced", "fs": "partial"},
        measurements=(*found, score_of(accuracy, version)),
    )


def _missing(metric: str, outcome: Outcome, reason: str, advice: str) -> Measurement:
    probe, better = METRICS[metric]
    return Metric(name=metric, better=better).missing(outcome, reason, advice).model_copy(update={"probe": probe})


def compared(evidences: Sequence[Evidence]) -> tuple[Comparison, ...]:
    """Every ordered pair, with invented paired errors and normal p-values; one pair is refused."""
    made = []
    for a in evidences:
        for b in evidences:
            for metric in ("validation_accuracy", "corruption_accuracy", "validation_loss", "score"):
                x, y = a.get(metric), b.get(metric)
                if a is b or x is None or y is None or x.estimate is None or y.estimate is None:
                    continue
                difference, error = y.estimate - x.estimate, 0.0027 if metric != "corruption_accuracy" else 0.004
                p = math.erfc(abs(difference) / error / math.sqrt(2))
                made.append(
                    Comparison(
                        metric=metric,
                        champion=a.candidate.label,
                        challenger=b.candidate.label,
                        better="lower" if metric == "validation_loss" else "higher",
                        difference=difference,
                        standard_error=error,
                        interval=(difference - 1.96 * error, difference + 1.96 * error),
                        p_value=p,
                        n=N,
                        method="Tango 1998" if metric == "validation_accuracy" else "paired t",
                    )
                )
    labels = {one.candidate.label for one in evidences}
    if not {"v7", "v9"} <= labels:
        return tuple(made)
    refused = {"metric": "hessian_trace", "better": "lower", "reason": "the dtypes differ: float32 / float64"}
    return (*made, Comparison(champion="v7", challenger="v9", **refused))


def arrays_of(version: int) -> dict[str, Array]:
    """Calibration bins, accuracies under corruption and loss curves; no corruption for version 13."""
    rng, accuracy = random.Random(version), accuracy_of(version)
    bins: list[float] = []
    for k in range(15):
        confidence = 1 - 0.58 * (1 - (k + 0.5) / 15) ** 4
        error = math.sqrt(confidence * (1 - confidence) / 120)
        bins += [confidence, min(1.0, max(0.0, confidence - 0.01 + rng.gauss(0, error))), 120.0 if k else 0.0]
    steps = [k / 5 - 1 for k in range(11)]
    sharp = 1.4 + 0.5 * (version % 4)
    curves = [0.1 + sharp * (0.7 + 0.6 * rng.random()) * step**2 for _ in range(4) for step in steps]
    if version == 12:
        curves[0] = math.inf
    grid = [accuracy - 0.03 * s - 0.03 * k - 0.004 * s * (version == 11) for k in range(3) for s in (1, 3, 5)]
    found = {
        "calibration/bins": shaped(bins, 15, 3),
        "landscape/steps": Array.of(steps),
        "landscape/curves": shaped(curves, 4, 11),
        "corruption/accuracy": shaped(grid, 3, 3),
        "validation_accuracy": Array.of([1.0, 0.0]),
    }
    return {name: array for name, array in found.items() if version != 13 or name != "corruption/accuracy"}


def shaped(values: Sequence[float], *shape: int) -> Array:
    return Array("d", shape, Array.of(values).data)


def record(kind: str, evidences: Sequence[Evidence], *, champion: bool = True, **fields: object) -> AuditRecord:
    """An audit of a kind over these candidates, judged by the real policy; the first is the champion."""
    policy = fields.pop("policy", POLICY)
    plan = AuditPlan(
        model="digits",
        data=(DataSpec(name="validation", role="validation", source=Spec(use="npz", params={"path": "v.npz"})),),
        probes=(Spec(use="accuracy"), Spec(use="corruption")),
        policy=policy,
    )
    first = evidences[0].candidate if champion and evidences else None
    made: Mapping[str, object] = {
        "id": "20260301T101500Z-a1b2c3",
        "kind": kind,
        "created": "2026-03-01T10:15:00+00:00",
        "actor": "ci@runner",
        "flataudit_version": "0.1.0",
        "plan": plan,
        "data": (
            DataSummary(
                name="validation",
                role="validation",
                n=N,
                shape=(1, 8, 8),
                kind="image",
                classes=10,
                groups=None,
                digest="sha256:" + "ab" * 32,
            ),
        ),
        "champion": first,
        "evidences": tuple(evidences),
    }
    if kind == "gate":
        pairs = compared(evidences)
        decision = decide(policy, evidences, pairs, champion=first.label if first else None)
        made = {**made, "comparisons": pairs, "decision": decision}
    if kind == "audit":
        made = {**made, "alarms": limits(policy, evidences[0])}
    return AuditRecord.model_validate({**made, **fields})


def rich_gate(**fields: object) -> tuple[AuditRecord, Arrays]:
    """Eight candidates: promoted, tied, held, rejected, over budget, not loadable; one of hostile name."""
    titles = {7: "baseline", 8: "sam rho=0.05", 9: "adamw", 10: "swa", 11: HOSTILE, 12: "mixup", 13: "large batch"}
    evidences = [evidence(version, title=titles.get(version)) for version in range(7, 15)]
    fields = {"receipt": Receipt(promoted="8", notes=(f"a mirror failed: {HOSTILE}",))} | fields
    return record("gate", evidences, **fields), {f"v{version}": arrays_of(version) for version in range(7, 14)}


def everything() -> dict[str, tuple[AuditRecord, Arrays]]:
    """Every kind of audit that a renderer must bear, by name."""
    rich, arrays = rich_gate()
    failed = [evidence(14), evidence(14).model_copy(update={"candidate": candidate(15)})]
    hostile = evidence(8).model_copy(update={"candidate": Candidate(name=HOSTILE, uri=HOSTILE, title=HOSTILE)})
    return {
        "rich": (rich, arrays),
        "dry run": rich_gate(dry_run=True, receipt=None),
        "before the receipt": rich_gate(receipt=None),
        "first promotion": (record("gate", [evidence(8), evidence(9)], champion=False), {}),
        "first promotion refused": (
            record("gate", [evidence(8)], champion=False, policy=Policy(first_promotion="refuse")),
            {},
        ),
        "no challenger": (record("gate", [evidence(7)]), {"v7": arrays_of(7)}),
        "all failed": (record("gate", failed), {}),
        "rejected": (record("gate", [evidence(7), evidence(11)]), arrays),
        "held": (record("gate", [evidence(7), evidence(7).model_copy(update={"candidate": candidate(17)})]), arrays),
        "score": (record("score", [evidence(8), evidence(14)], champion=False), arrays),
        "score of nothing": (record("score", [], champion=False), {}),
        "audit": (record("audit", [evidence(12)]), arrays),
        "audit passed": (record("audit", [evidence(8)]), arrays),
        "audit failed": (record("audit", [evidence(14)]), {}),
        "hostile label": (record("gate", [evidence(7), hostile]), {HOSTILE: arrays_of(8)}),
    }
