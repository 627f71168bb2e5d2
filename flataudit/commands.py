"""What the commands do, once their arguments are read: make the parts by name, run, say how it ended."""

import json
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from flataudit import __version__, archive, plugins
from flataudit.actor import actor
from flataudit.audit import AuditKind, AuditRecord, Occasion, Parts, run
from flataudit.config import AuditConfig, Challengers, DataSection, load_config
from flataudit.contracts import Check, Comparer, Executor, Probe, Progress, Registry
from flataudit.errors import ConfigurationError, FlatauditError, ReportError
from flataudit.evidence import Array, Evidence, Outcome
from flataudit.report.explanation import Explanation
from flataudit.report.explanation import explained as explanations
from flataudit.reuse import EvidenceStore, store_folder
from flataudit.specs import Spec

__all__ = [
    "Performed",
    "checks",
    "evidences_of",
    "exit_code",
    "explained",
    "for_run",
    "listing",
    "loaded_audit",
    "perform",
    "policy_file",
    "read_config",
    "run_config",
    "scored",
    "with_options",
]

_SUFFIXES = {".npz": "npz", ".csv": "csv", ".parquet": "parquet"}
_DECISIONS = {"promote": 0, "hold": 1, "reject": 1, "inconclusive": 3}


@dataclass(frozen=True)
class Performed:
    """A finished audit and the folder that holds its records and reports."""

    record: AuditRecord
    folder: Path


def with_options(
    config: AuditConfig, *, seed: int | None = None, device: str | None = None, engine: str | None = None, **more: Any
) -> AuditConfig:
    """The configuration with what the command line overrides; None leaves a value as it is.

    ``--engine local`` is for debugging: it asks for no isolation, and the record says so.
    """
    changes = {"seed": seed, "device": device, **more}
    if engine is not None:
        changes["executor"] = Spec(use=engine)
    if engine == "local":
        changes["isolation"] = config.isolation.model_copy(update={"minimum": ()})
    return AuditConfig.model_validate(
        {name: getattr(config, name) for name in AuditConfig.model_fields}
        | {key: value for key, value in changes.items() if value is not None}
    )


def scored(
    run_id: str | None, experiment: str | None, *, filter: str | None, order_by: str | None, top: int | None
) -> Challengers:
    """The models of a run, or the last model of each of the best runs of an experiment.

    Raises:
        ConfigurationError: neither or both are named, or a run with what only an experiment has.
    """
    chosen = {"filter": filter, "order_by": order_by, "top": top}
    given = {name: value for name, value in chosen.items() if value is not None}
    if (run_id is None) == (experiment is None):
        got = "both" if run_id else "neither"
        raise ConfigurationError("--run-id or --experiment", got=got, remedy="name a run, or the runs of an experiment")
    if run_id is not None and given:
        got = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigurationError("--experiment with --filter, --order-by and --top", got=got, remedy="leave them out")
    if run_id is not None:
        return Challengers(run=run_id)
    return Challengers.model_validate({"sweep": {"experiment": experiment, **given}})


def run_config(candidates: Challengers, data: Path | None, tracking_uri: str | None) -> AuditConfig:
    """A configuration without a policy file; data from ``data`` or from what the runs logged.

    Raises:
        ConfigurationError: neither gives validation data.
    """
    what = f"run {candidates.run}" if candidates.sweep is None else f"experiment {candidates.sweep.experiment}"
    base = {"model": what, "challengers": candidates}
    if data is not None:
        section = DataSection(validation=data_spec(data))
        return AuditConfig(**base, data=section)
    placeholder = AuditConfig(**base, data=DataSection(validation=Spec(use="npz")))
    logged = _registry(placeholder, tracking_uri).datasets()
    by_role = {spec.role: spec.source for spec in logged}
    if "validation" not in by_role:
        raise ConfigurationError(
            f"a readable validation data set logged with {what}",
            got=", ".join(by_role) or "none",
            remedy="name one with --data validation.npz, or write a policy file and name it with --config",
        )
    return AuditConfig(**base, data=DataSection(validation=by_role["validation"], train=by_role.get("train")))


def for_run(path: Path, candidates: Challengers, data: Path | None) -> AuditConfig:
    """A policy file applied to the models of runs."""
    config = load_config(path)
    section = config.data.model_copy(update={"validation": data_spec(data)}) if data else config.data
    return config.model_copy(update={"challengers": candidates, "data": section})


def data_spec(path: Path) -> Spec:
    """The data plugin for a file, by its suffix."""
    use = _SUFFIXES.get(path.suffix)
    if use is None:
        known = ", ".join(_SUFFIXES)
        raise ConfigurationError(f"a data file ending in {known}", got=str(path), remedy="convert it, or use --config")
    return Spec(use=use, params={"path": str(path.resolve())})


def perform(
    kind: AuditKind,
    config: AuditConfig,
    *,
    progress: Progress,
    tracking_uri: str | None = None,
    dry_run: bool = False,
    fresh: bool = False,
    out: Path | None = None,
) -> Performed:
    """Run one audit by its configuration; ``fresh``: nothing that was measured before is used."""
    now = datetime.now(UTC)
    occasion = Occasion(
        id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        created=now.isoformat(timespec="seconds"),
        actor=actor(),
        flataudit_version=__version__,
        dry_run=dry_run,
    )
    folder = out or Path(config.report.directory) / f"{kind}-{occasion.id}"
    if folder.exists():
        raise ConfigurationError("a new folder for the report", got=f"{folder}, which exists", remedy="choose another")

    def publish(record: AuditRecord, arrays: Mapping[str, Mapping[str, Array]]) -> Path:
        return archive.publish(record, arrays, folder, config.report.formats)

    _check_formats(config.report.formats)
    registry = _registry(config, tracking_uri)
    if kind == "gate" and not dry_run:
        getattr(registry, "seal", None)  # a signing key that cannot be read is told before the work, not after it
    with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
        parts = Parts(
            registry=registry,
            executor=cast("Executor", plugins.make("executors", config.executor.use, config.executor_params())),
            comparer=cast("Comparer", plugins.make("comparers", config.comparer.use, dict(config.comparer.params))),
            publish=publish,
            progress=progress,
            workdir=Path(scratch),
            store=_store(config, fresh),
        )
        return Performed(run(kind, config.plan(), parts, occasion), folder)


def exit_code(record: AuditRecord) -> int:
    """0 promoted or passed, 1 rejected or held, 3 inconclusive or nothing measured."""
    if record.decision is not None:
        return _DECISIONS[record.decision.outcome]
    if record.kind == "audit":
        words = {verdict.word for verdict in record.alarms}
        return 1 if "fail" in words else 0 if words and words <= {"pass", "waived"} else 3
    metric = record.plan.policy.non_inferiority.metric
    measured = [m for e in record.evidences if (m := e.get(metric)) and m.outcome is Outcome.MEASURED]
    return 0 if measured else 3


def loaded_audit(where: str, tracking_uri: str | None = None) -> tuple[AuditRecord, archive.Arrays]:
    """A stored audit by its folder, its ``audit.json``, or the registry's audit run.

    Raises:
        ReportError: there is no audit of that name.
    """
    path = Path(where)
    if path.exists():
        return archive.read(path)
    registry = plugins.make("registries", "mlflow", _uri({"model": "unknown"}, tracking_uri))
    with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
        try:
            registry.load_audit(where, Path(scratch))  # type: ignore[attr-defined]  # an ability of this registry
        except ConfigurationError as error:
            remedy = "name a folder that a gate printed, or an audit run of the registry"
            raise ReportError(f"a stored audit called {where!r}", got=error.got, remedy=remedy) from error
        return archive.read(Path(scratch))


def evidences_of(names: Sequence[str], tracking_uri: str | None = None) -> list[tuple[str, Evidence]]:
    """Candidates of stored audits; ``AUDIT:v8`` picks one of them. Each with a label that tells it apart."""
    found: list[tuple[str, Evidence]] = []
    for name in names:
        where, _, wanted = name.rpartition(":") if ":" in name and not Path(name).exists() else (name, "", "")
        record, _arrays = loaded_audit(where, tracking_uri)
        chosen = [e for e in record.evidences if not wanted or e.candidate.label == wanted]
        if not chosen:
            known = [e.candidate.label for e in record.evidences]
            raise ConfigurationError(f"a candidate of {where}", got=wanted, remedy=plugins.nearest(wanted, known))
        prefix = f"{record.id[-6:]}:" if len(names) > 1 else ""
        found.extend((prefix + evidence.candidate.label, evidence) for evidence in chosen)
    return found


def explained(record: AuditRecord, candidate: str | None) -> list[Explanation]:
    """The explanations of a stored audit, or of one of its candidates.

    Raises:
        ConfigurationError: it decided nothing about such a candidate.
    """
    found = [one for one in explanations(record) if candidate in (None, one.candidate)]
    if not found:
        known = [one.candidate for one in explanations(record)]
        remedy = plugins.nearest(candidate or "", known) if known else "only gates and scheduled audits decide"
        raise ConfigurationError(f"a candidate that audit {record.id} judged", got=candidate or "none", remedy=remedy)
    return found


def listing() -> list[dict[str, JsonValue]]:
    """Every installed plugin: its group, name, and for a probe its metrics, data and needs."""
    rows: list[dict[str, JsonValue]] = []
    for group in plugins.GROUPS:
        for name in plugins.names(group):
            row: dict[str, JsonValue] = {"group": group, "name": name}
            try:
                cls = plugins.load(group, name)
            except FlatauditError as error:
                rows.append(row | {"error": str(error)})
                continue
            summary = (cls.__doc__ or "").strip().partition("\n")[0]
            row |= {"about": summary, "parameters": list(getattr(cls, "model_fields", {}))}
            if group == "probes":
                row |= _about_probe(cast("type[Probe]", cls))
            rows.append(row)
    return rows


def _about_probe(probe: type[Probe]) -> dict[str, JsonValue]:
    return {
        "metrics": [metric.name for metric in probe.metrics],
        "data": probe.role,
        "needs": probe.requires.__name__.lower(),
        "version": probe.version,
    }


def checks(tracking_uri: str | None, config: AuditConfig | None) -> list[Check]:
    """What works on this machine, as every installed registry, executor and backend says of itself."""
    found: list[Check] = []
    for group in ("registries", "executors", "backends"):
        for name in plugins.names(group):
            params: dict[str, JsonValue] = {}
            if group == "registries":
                params = config.registry_params(tracking_uri) if config else _uri({"model": "unknown"}, tracking_uri)
            try:
                plugin = plugins.make(group, name, params)
                found.extend(getattr(plugin, "check", list)())
            except PackageNotFoundError:
                found.append(_not_installed(group, name, f"pip install 'flataudit[{name}]'"))
            except FlatauditError as error:
                if str(error.remedy).startswith("pip install"):
                    found.append(_not_installed(group, name, error.remedy))
                else:
                    found.append(Check(name=f"{group}: {name}", ok=False, found=error.got, remedy=error.remedy))
    return list(dict.fromkeys(found))


def _not_installed(group: str, name: str, remedy: str | None) -> Check:
    """An extra that nobody asked for is no fault of the machine."""
    return Check(name=f"{group}: {name}", ok=True, found="not installed; its candidates are refused", remedy=remedy)


def policy_file(model: str, tracking_uri: str | None) -> str:
    """A commented ``flataudit.yaml`` from what the registry knows of the model."""
    registry = plugins.make("registries", "mlflow", _uri({"model": model}, tracking_uri))
    known: list[str] = registry.describe().lines()  # type: ignore[attr-defined]  # an ability of this registry
    data = {spec.role: spec.source for spec in cast("Registry", registry).datasets()}
    template = (Path(__file__).parent / "flataudit.template.yaml").read_text(encoding="utf-8")
    return template.format(
        model=_quoted(model),
        known="\n".join(f"#   {line}" for line in known),
        validation=_flow(data.get("validation"), "validation.npz"),
        train=_flow(data.get("train"), "train.npz"),
        train_mark="" if "train" in data else "# ",
    )


def read_config(path: Path | None) -> AuditConfig:
    """The named policy file, or ``flataudit.yaml`` of this folder."""
    return load_config(path or Path("flataudit.yaml"))


def _registry(config: AuditConfig, tracking_uri: str | None) -> Registry:
    return cast("Registry", plugins.make("registries", config.registry.use, config.registry_params(tracking_uri)))


def _store(config: AuditConfig, fresh: bool) -> EvidenceStore:
    engine = f"{config.executor.use} {sorted(config.isolation.minimum)}"
    store = EvidenceStore(store_folder(os.environ), engine, fresh)
    store.prune()
    return store


def _uri(params: dict[str, JsonValue], tracking_uri: str | None) -> dict[str, JsonValue]:
    return params | ({"tracking_uri": tracking_uri} if tracking_uri else {})


def _check_formats(formats: Sequence[str]) -> None:
    for name in formats:
        plugins.make("reports", name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _flow(spec: Spec | None, default: str) -> str:
    """A spec as one line of YAML."""
    if spec is None:
        return f"{{use: npz, path: {default}, inputs: x, targets: y}}   # <- your data"
    parts = [f"use: {spec.use}", *(f"{key}: {_quoted(str(value))}" for key, value in spec.params.items() if value)]
    return "{" + ", ".join(parts) + "}"
