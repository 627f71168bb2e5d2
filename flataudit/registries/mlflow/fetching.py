"""Bytes of a candidate, and the data that its run was trained and validated on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import yaml
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from flataudit.contracts import DataSpec, Role, Spec
from flataudit.errors import ModelError
from flataudit.evidence import Candidate
from flataudit.manifest import manifest_digest
from flataudit.registries.mlflow.client import is_missing, is_silence

__all__ = ["fetched", "logged_datasets", "read_mlmodel"]

_ADDED_BY_CLIENT = ("registered_model_meta",)
"""Written by MLflow's client into what it downloads by name and version; no bytes of the candidate's."""
_FLAVOURS = ("pytorch", "onnx", "sklearn", "transformers", "lightgbm", "xgboost")
_ROLES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "eval": "validation",
    "evaluation": "validation",
}
_SUFFIXES = {".npz": "npz", ".csv": "csv", ".parquet": "parquet"}
_MLMODEL_BYTES = 2**20


def fetched(candidate: Candidate, uri: str, into: Path) -> Candidate:
    """Copy the candidate's files into an empty folder; the candidate with flavour and digest.

    They are fetched as a server fetches them, by name and version; the digest is that of the logged model too.

    Raises:
        ModelError: the registry has no files for it, or no readable MLmodel among them.
    """
    try:
        download_artifacts(artifact_uri=candidate.uri, dst_path=str(into), tracking_uri=uri, registry_uri=uri)
    except (MlflowException, OSError) as error:
        if is_silence(error):
            raise
        told = str(error).strip().partition("\n")[0][:300]
        remedy = "restore its artifacts or log it again"
        raise ModelError(f"the files of {candidate.label}", got=told, remedy=remedy) from error
    for name in _ADDED_BY_CLIENT:
        (into / name).unlink(missing_ok=True)
    flavours = read_mlmodel(into / "MLmodel")["flavors"]
    return candidate.model_copy(update={"flavour": _flavour(flavours), "digest": manifest_digest(into)})


def read_mlmodel(file: Path) -> Mapping[str, object]:
    """The keys of an MLmodel file, which holds at least a mapping called ``flavors``.

    Raises:
        ModelError: missing, too large, not YAML, or without flavours.
    """
    try:
        if file.stat().st_size > _MLMODEL_BYTES:
            raise ValueError(f"more than {_MLMODEL_BYTES} bytes")
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("flavors"), dict):
            raise ValueError("no flavours")
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        raise ModelError("an MLmodel file in the artifact", got=told, remedy="log the model again") from error
    return found


def _flavour(flavours: object) -> str:
    """The most specific flavour: one that is known, else any, else the plain function that all models have.

    >>> _flavour({"python_function": {}, "pytorch": {}}), _flavour({"python_function": {}}), _flavour({"spacy": {}})
    ('pytorch', 'python_function', 'spacy')
    """
    assert isinstance(flavours, dict)
    names = [str(name) for name in flavours]
    known = [name for name in _FLAVOURS if name in names]
    other = sorted(name for name in names if name != "python_function")
    return next(iter(known + other), "python_function")


def logged_datasets(client: mlflow.MlflowClient, run_ids: Sequence[str]) -> list[DataSpec]:
    """Data sets of the runs that can be read from here; the first run that has a role gives it."""
    found: dict[Role, DataSpec] = {}
    for run_id in run_ids:
        try:
            inputs = client.get_run(run_id).inputs
        except MlflowException as error:
            if is_missing(error):  # deleted for good: its version may still be there
                continue
            raise
        for entry in inputs.dataset_inputs if inputs else []:
            context = next((tag.value for tag in entry.tags if tag.key == "mlflow.data.context"), "")
            role, path = _ROLES.get(context), _local_path(entry.dataset.source)
            if role is None or path is None or role in found:
                continue
            source = Spec(use=_SUFFIXES[path.suffix], params={"path": str(path.resolve())})
            found[role] = DataSpec(name=role, role=role, source=source)
    return list(found.values())


def _local_path(source: str) -> Path | None:
    """The readable file that a logged data set came from, if it is one."""
    try:
        uri = str(json.loads(source).get("uri", ""))
        parts = urlsplit(uri)
        path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(uri)
        readable = parts.scheme in ("", "file") and path.suffix in _SUFFIXES and path.is_file()
    except (ValueError, AttributeError, OSError, RecursionError):
        return None
    return path if readable else None
