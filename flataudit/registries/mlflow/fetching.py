"""Bytes of a candidate, and the data that its run was trained and validated on."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from flataudit.admission.snapshot import SnapshotLimits, snapshot
from flataudit.errors import ModelError, RegistryError
from flataudit.evidence import Candidate
from flataudit.mlmodel import read_mlmodel
from flataudit.registries.mlflow.client import is_missing, is_silence
from flataudit.specs import DataSpec, Role, Spec

__all__ = ["download", "fetched", "logged_datasets"]

_REMEDY = "restore its artifacts or log it again"
_FLAVOURS = ("pytorch", "onnx", "sklearn", "transformers", "lightgbm", "xgboost", "flataudit.state_dict")
_ROLES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "eval": "validation",
    "evaluation": "validation",
}
_SUFFIXES = {".npz": "npz", ".csv": "csv", ".parquet": "parquet"}


def fetched(client: mlflow.MlflowClient, uri: str, candidate: Candidate, into: Path) -> Candidate:
    """Copy the candidate's files into an empty folder; the candidate with flavour and digest.

    Raises:
        ModelError: the registry has no files for it, more than is allowed, links among them, or no readable MLmodel.
    """
    digest = download(client, uri, candidate, into)
    flavour = _flavour(list(read_mlmodel(into).flavours))
    return candidate.model_copy(update={"flavour": flavour, "digest": digest})


def download(
    client: mlflow.MlflowClient,
    uri: str,
    candidate: Candidate,
    into: Path,
    *,
    path: str = "",
    limits: SnapshotLimits | None = None,
) -> str:
    """Take a snapshot of all files, or of one that lies in no folder, where the registry keeps them; its digest.

    MLflow resolves ``models:/…`` at the whole process's registry, whatever the client's, and adds a file of its own
    to what it downloads; so the place is asked for here, and only bytes of the candidate's arrive.

    Raises:
        ModelError: there is no such file, a link or a pipe is among them, or they are more than is allowed.
    """
    allowed = limits or SnapshotLimits()
    try:
        if candidate.version is None:
            place = client.get_logged_model(str(candidate.model_id)).artifact_location
        else:
            place = client.get_model_version_download_uri(candidate.name, candidate.version)
        repository = get_artifact_repository(place, tracking_uri=uri, registry_uri=uri)
        local = _local(place)
        if local is not None:  # MLflow would follow links and wait for pipes
            return snapshot(local, into, only=path, limits=allowed)
        _check_sizes(repository, path, allowed)
        with tempfile.TemporaryDirectory(prefix=".arriving-", dir=into.parent) as scratch:
            repository.download_artifacts(path, scratch)  # type: ignore[no-untyped-call]  # one of MLflow's few
            return snapshot(Path(scratch), into, limits=allowed, consume=True)
    except (MlflowException, OSError) as error:
        if is_silence(error):
            raise
        told = str(error).strip().partition("\n")[0][:300]
        absent = isinstance(error, FileNotFoundError) or (isinstance(error, MlflowException) and is_missing(error))
        if absent or _says_missing(told):
            raise ModelError(f"the files of {candidate.label}", got=told, remedy=_REMEDY) from error
        # A full disk or a store that fails says nothing about the model: no verdict may come of it.
        remedy = "run it again; if it stays so, look at the disk here and at the artifact store"
        raise RegistryError(f"the files of {candidate.label}", got=told, remedy=remedy) from error


def _check_sizes(repository: ArtifactRepository, path: str, limits: SnapshotLimits) -> None:
    """Refuse what its store already says to be too much; what arrives is counted again."""
    todo, files, total = [(path, 0)], 0, 0
    while todo:
        folder, depth = todo.pop()
        for found in repository.list_artifacts(folder):
            size = 0 if found.is_dir else int(found.file_size or 0)
            files, total = files + 1, total + size
            limits.check(files, total, size, depth)
            if found.is_dir:
                todo.append((found.path, depth + 1))


def _says_missing(told: str) -> bool:
    """MLflow's artifact stores tell what is not there in words alone."""
    return any(word in told for word in ("No such file", "not found", "does not exist", "No such artifact", "404"))


def _local(place: str) -> Path | None:
    """The folder of this machine that a place is; None: it is elsewhere."""
    parts = urlsplit(place)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") and not parts.netloc else None


def _flavour(names: Sequence[str]) -> str:
    """The most specific flavour that is known, else the plain function that nearly all models have, else any.

    >>> _flavour(["python_function", "pytorch"]), _flavour(["python_function", "spacy"]), _flavour(["spacy"])
    ('pytorch', 'python_function', 'spacy')
    """
    known = [name for name in (*_FLAVOURS, "python_function") if name in names]
    return next(iter([*known, *sorted(names)]), "unknown")


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
