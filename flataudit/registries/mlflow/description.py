"""What the registry knows of a model, in lines a person reads above a new policy."""

import tempfile
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from flataudit.errors import ModelError
from flataudit.evidence import Candidate, Record
from flataudit.mlmodel import read_mlmodel
from flataudit.registries.mlflow.client import is_missing
from flataudit.registries.mlflow.fetching import download
from flataudit.registries.mlflow.selection import candidate, versions_of

__all__ = ["ModelDescription", "describe"]

_SHOWN = 6
_LINE = 300


class ModelDescription(Record):
    """A registered model at a glance."""

    versions: tuple[str, ...]
    """Newest first."""
    aliases: tuple[str, ...]
    """``champion -> version 3``."""
    params: tuple[str, ...]
    """Of the newest version's run."""
    metrics: tuple[str, ...]
    """Of the newest version's run."""
    datasets: tuple[str, ...]
    """Of the newest version's run, with what they were used for."""
    signature: tuple[str, ...]
    """Inputs and outputs of the newest version, as it declares them."""

    def lines(self) -> list[str]:
        """One clean line a fact: whatever the registry holds, nothing breaks out of a comment."""
        facts = {
            "versions, newest first": self.versions,
            "aliases": self.aliases,
            "params of the newest version's run": self.params,
            "metrics of that run": self.metrics,
            "data sets of that run": self.datasets,
            "signature of the newest version": self.signature,
        }
        return [_clean(f"{what}: {', '.join(found[:_SHOWN]) or 'none'}") for what, found in facts.items()]


def describe(client: mlflow.MlflowClient, uri: str, model: str) -> ModelDescription:
    """Read it from the registry; a run or an artifact that is gone leaves its lines empty."""
    versions = versions_of(client, model)
    aliases = client.get_registered_model(model).aliases
    run = _run(client, versions[0].run_id) if versions else None
    inputs = run.inputs.dataset_inputs if run and run.inputs else []
    return ModelDescription(
        versions=tuple(str(v.version) for v in versions),
        aliases=tuple(f"{alias} -> version {version}" for alias, version in sorted(aliases.items())),
        params=tuple(f"{k} {v}" for k, v in sorted(run.data.params.items())) if run else (),
        metrics=tuple(f"{k} {v:.4g}" for k, v in sorted(run.data.metrics.items()) if "/" not in k) if run else (),
        datasets=tuple(
            f"{entry.dataset.name} ({next((t.value for t in entry.tags if t.key == 'mlflow.data.context'), '?')})"
            for entry in inputs
        ),
        signature=_signature(client, uri, candidate(client, versions[0])) if versions else (),
    )


def _run(client: mlflow.MlflowClient, run_id: str | None) -> Run | None:
    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def _signature(client: mlflow.MlflowClient, uri: str, newest: Candidate) -> tuple[str, ...]:
    """``inputs …`` and ``outputs …`` of the MLmodel file."""
    with tempfile.TemporaryDirectory(prefix="flataudit-") as scratch:
        try:
            download(client, uri, newest, Path(scratch), path="MLmodel")
            declared = read_mlmodel(Path(scratch)).signature
        except ModelError:
            return ()
    if declared is None:
        return ()
    sides = {"inputs": declared.inputs, "outputs": declared.outputs}
    return tuple(f"{side} {', '.join(field.told for field in fields)}" for side, fields in sides.items() if fields)


def _clean(text: str) -> str:
    r"""One line of printable characters.

    >>> _clean("a\n\x1b[31m\u202eb")
    'a ?[31m?b'
    """
    line = " ".join(text.split())[:_LINE]
    return "".join(character if character.isprintable() else "?" for character in line)
