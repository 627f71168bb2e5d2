"""The conformance suites pass what is installed, and bite what breaks a rule."""

import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from flataudit import plugins
from flataudit.audit import AuditRecord
from flataudit.contracts import (
    AuditData,
    Differentiable,
    Finished,
    Perturbable,
    Predictor,
    Probe,
    Progress,
    Reading,
    Renderer,
)
from flataudit.evidence import Array, Candidate, Examined, Metric, Record
from flataudit.executors.local import LocalExecutor
from flataudit.ledger import Ledger, LedgerDraft, LedgerEntry
from flataudit.manifest import manifest_digest
from flataudit.report.markdown import MarkdownReport
from flataudit.specs import Budget, Job, Role
from flataudit.testing import check_executor, check_probe, check_registry, check_renderer
from flataudit.testing.subjects import LinearModel

# ── Probes ──


# `label_free` learns from a model that is right more often where it is surer, which no standard subject is: its own
# test has one. `intervals` needs a stated distribution and `temperature` 100 examples; their own tests have them.
@pytest.mark.parametrize("name", sorted({*plugins.names("probes")} - {"label_free", "intervals", "temperature"}))
def test_every_installed_probe_conforms(name: str) -> None:
    check_probe(cast("Probe", plugins.make("probes", name)))


class Mean(Record):
    """A probe without fault; the others here break one rule each."""

    version: ClassVar[str] = "1"
    requires: ClassVar[type] = Predictor
    role: ClassVar[Role] = "validation"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="first"), Metric(name="second"))

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        value = float(model.predict(data.inputs).mean())
        return [
            Reading(self.metrics[0].measured(value, samples="first"), {"first": Array.of([value])}),
            Reading(self.metrics[1].measured(np.random.default_rng(seed).random())),
        ]


class MutatesData(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        data.inputs[0] = 0
        return super().measure(model, data, seed, budget)


class MutatesModel(Mean):
    requires: ClassVar[type] = Perturbable

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        cast("Any", model)._weights["bias"][:] += 1
        return super().measure(model, data, seed, budget)


class MutatesTorch(Mean):
    requires: ClassVar[type] = Differentiable

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        for parameter in cast("Differentiable", model).parameters.values():
            parameter.add_(1.0)
        return super().measure(model, data, seed, budget)


class LeavesGradients(Mean):
    requires: ClassVar[type] = Differentiable

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        for parameter in cast("Any", model)._served._module.parameters():
            parameter.requires_grad_(False)
        return super().measure(model, data, seed, budget)


class DrawsFromNumpy(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        np.random.random()  # one number moves the position in the state alone, not the state
        return super().measure(model, data, seed, budget)


class DrawsFromPython(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        random.random()
        return super().measure(model, data, seed, budget)


class DrawsFromTorch(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        import torch

        torch.rand(1)
        return super().measure(model, data, seed, budget)


class IgnoresTheSeed(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        return super().measure(model, data, int(np.random.default_rng().integers(2**31)), budget)


class OmitsAMetric(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        return super().measure(model, data, seed, budget)[:1]


class GivesOneTwice(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        first, second = super().measure(model, data, seed, budget)
        return [first, second, Reading(second.measurement)]


class NotFinite(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        first, second = super().measure(model, data, seed, budget)
        return [first, Reading(second.measurement.model_copy(update={"estimate": float("nan")}))]


class WritesWhatTheRecordLacks(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        first, second = super().measure(model, data, seed, budget)
        return [first, Reading(second.measurement.model_copy(update={"n": "many"}))]


class ForgetsItsArray(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        first, second = super().measure(model, data, seed, budget)
        return [Reading(first.measurement), second]


class DropsTheOddBatch(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        whole = len(data) - len(data) % model.batch_size
        if not whole:
            raise ValueError("no full batch")
        return super().measure(model, data, seed, budget)


class RaisesWhenPoor(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        if budget.passes < 1:
            raise ValueError("too poor")
        return super().measure(model, data, seed, budget)


class NeverMeasures(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        from flataudit.evidence import Outcome

        return [Reading(metric.missing(Outcome.NOT_APPLICABLE, "never")) for metric in self.metrics]


class OtherUnit(Mean):
    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        first, second = super().measure(model, data, seed, budget)
        return [first, Reading(second.measurement.model_copy(update={"unit": "furlong"}))]


class BadName(Mean):
    metrics: ClassVar[tuple[Metric, ...]] = (Metric(name="first;drop"), Metric(name="second"))


class NumberedVersion(Mean):
    version: ClassVar[Any] = 1


class NoRecord:
    version, requires, role, metrics = "1", Predictor, "validation", Mean.metrics

    def measure(self, model: Predictor, data: AuditData, seed: int, budget: Budget) -> Sequence[Reading]:
        return Mean().measure(model, data, seed, budget)


class ShiftedWithoutName(Mean):
    role: ClassVar[Role] = "shifted"


class OwnCapability(Mean):
    requires: ClassVar[type] = LinearModel


def test_a_probe_without_fault_passes() -> None:
    check_probe(Mean())


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (MutatesData, "the data as they were"),
        (MutatesModel, "the model as it was"),
        (MutatesTorch, "the model as it was"),
        (LeavesGradients, "the model as it was"),
        (DrawsFromNumpy, "another random state of NumPy"),
        (DrawsFromPython, "another random state of Python"),
        (DrawsFromTorch, "another random state of torch"),
        (IgnoresTheSeed, "the same numbers for the same seed .* other values of second"),
        (OmitsAMetric, r"each declared metric once .* got \['first'\]"),
        (GivesOneTwice, r"each declared metric once .* got \['first', 'second', 'second'\]"),
        (NotFinite, "a valid, finite measurement of second"),
        (WritesWhatTheRecordLacks, "a valid, finite measurement of second"),
        (ForgetsItsArray, "the array 'first' that first names"),
        (DropsTheOddBatch, "readings on one example, got ValueError: no full batch"),
        (RaisesWhenPoor, "got ValueError: too poor"),
        (NeverMeasures, "no number for first, second"),
        (OtherUnit, "furlong"),
        (BadName, "which MLflow takes, got 'first;drop'"),
        (NumberedVersion, "a version as a non-empty string, got 1"),
        (NoRecord, "a probe that is a frozen Record"),
        (ShiftedWithoutName, r"each declared metric once .*metric.of\(data.name\)"),
        (OwnCapability, "give subjects of your own"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_rule_is_found(probe: type[Probe], expected: str) -> None:
    if "torch" not in sys.modules:
        __import__("torch")
    with pytest.raises(AssertionError, match=expected):
        check_probe(probe())


# ── Renderers ──


@pytest.mark.parametrize("name", plugins.names("reports"))
def test_every_installed_renderer_conforms(name: str) -> None:
    check_renderer(cast("Renderer", plugins.make("reports", name)))


class Raw(MarkdownReport):
    """Writes a name as it is."""

    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        return super().render(audit, arrays) + audit.plan.model.partition("\n")[0]


class Invisible(MarkdownReport):
    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        return super().render(audit, arrays) + "\u202e"


class Draws(MarkdownReport):
    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        return super().render(audit, arrays) + str(np.random.default_rng().random())


class KeepsTheOrder(MarkdownReport):
    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        return super().render(audit, arrays) + " ".join(arrays)


class NotXml(MarkdownReport):
    suffix: ClassVar[str] = "xml"


class Stumbles(MarkdownReport):
    def render(self, audit: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> str:
        return json.dumps(audit.evidences[0].measurements[0].estimate) + str(arrays["v3"])


@pytest.mark.parametrize(
    ("renderer", "expected"),
    [
        (Raw, "no markup from a name"),
        (Invisible, r"only visible characters .*U\+202E"),
        (Draws, "the same document"),
        (KeepsTheOrder, "the same document"),
        (NotXml, "well-formed xml"),
        (Stumbles, "a document for the gate, got KeyError"),
    ],
)
def test_a_careless_renderer_is_found(renderer: type[Renderer], expected: str) -> None:
    with pytest.raises(AssertionError, match=expected):
        check_renderer(renderer())


# ── Executors and registries ──


@pytest.mark.parametrize("name", plugins.names("executors"))
def test_every_installed_executor_conforms(name: str) -> None:
    check_executor(cast("Any", plugins.make("executors", name)))


class Backwards(LocalExecutor):
    def map(self, jobs: Sequence[Job], progress: Progress, finished: Finished | None = None) -> list[Examined]:
        return super().map(jobs, progress, finished)[::-1]


class SaysNothing(LocalExecutor):
    def map(self, jobs: Sequence[Job], progress: Progress, finished: Finished | None = None) -> list[Examined]:
        found = super().map(list(jobs), progress, finished)
        return [Examined(one.evidence.model_copy(update={"isolation": {}})) for one in found]


@pytest.mark.parametrize(
    ("executor", "expected"), [(Backwards, "in the jobs' order"), (SaysNothing, "isolation that says")]
)
def test_a_careless_executor_is_found(executor: type[LocalExecutor], expected: str) -> None:
    with pytest.raises(AssertionError, match=expected):
        check_executor(executor())


class Folder:
    """A registry of one champion and one challenger, kept in memory."""

    files: Mapping[str, bytes] = {"1": b"one", "2": b"two"}

    def champion(self) -> Candidate | None:
        return Candidate(name="m", version="1", uri="models:/m/1")

    def challengers(self) -> Sequence[Candidate]:
        return [Candidate(name="m", version="2", uri="models:/m/2")]

    def fetch(self, candidate: Candidate, into: Path) -> Candidate:
        (into / "model").write_bytes(self.files[candidate.version or ""])
        return candidate.model_copy(update={"flavour": "pytorch", "digest": manifest_digest(into)})

    def history(self) -> Sequence[LedgerEntry]:
        draft = LedgerDraft(
            model="m",
            alias="champion",
            kind="hold",
            audit="a",
            operation="o",
            created="2026-01-01T00:00:00+00:00",
            actor="t",
        )
        ledger = Ledger(model="m")
        for _ in range(2):
            ledger = ledger.model_copy(update={"entries": (*ledger.entries, ledger.followed_by(draft))})
        return ledger.entries


class LosesAnEntry(Folder):
    def history(self) -> Sequence[LedgerEntry]:
        return super().history()[1:]


class ChallengesItself(Folder):
    def challengers(self) -> Sequence[Candidate]:
        return [Candidate(name="m", version="1", uri="models:/m/1")]


class ForgetsTheDigest(Folder):
    def fetch(self, candidate: Candidate, into: Path) -> Candidate:
        return super().fetch(candidate, into).model_copy(update={"digest": None})


class Empty(Folder):
    def champion(self) -> None:
        return None

    def challengers(self) -> Sequence[Candidate]:
        return []


class Renames(Folder):
    def fetch(self, candidate: Candidate, into: Path) -> Candidate:
        return super().fetch(candidate, into).model_copy(update={"name": "other"})


def test_a_registry_without_fault_passes() -> None:
    check_registry(cast("Any", Folder()))


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        (ChallengesItself, "not among the challengers"),
        (ForgetsTheDigest, "the digest of the fetched files of v1"),
        (Empty, "a champion or a challenger"),
        (Renames, "change nothing else when fetching"),
        (LosesAnEntry, "a history that is a chain"),
    ],
)
def test_a_careless_registry_is_found(registry: type[Folder], expected: str) -> None:
    with pytest.raises(AssertionError, match=expected):
        check_registry(cast("Any", registry()))
