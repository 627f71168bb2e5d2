"""The demo's training pipeline, on the user's side of the registry: data, candidates, MLflow runs and versions.

It makes no audit. Thirty writers' digits are split into training and validation; thirteen other writers'
stay apart, as the world that the models will meet.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.data.numpy_dataset import from_numpy
from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]  # made as MLflow is imported
from mlflow.exceptions import MlflowException
from torch import nn

from flataudit.contracts import AuditData
from flataudit.data.npz import NpzFile
from flataudit.demo.recipes import RECIPES, Recipe, train
from flataudit.specs import Role

__all__ = ["DATA_FILES", "Trained", "accuracy", "log_candidates", "name_first_champion", "train_all", "write_data"]

DATA_FILES = {"train": "train.npz", "validation": "validation.npz", "unseen_writers": "unseen_writers.npz"}
"""What `write_data` writes, by the data set's name."""
_TRAINING_EXAMPLES = 2000
_SPLIT_SEED = 0

Progress = Callable[[str, float], None]
"""``(recipe, share done)``."""


@dataclass(frozen=True)
class Trained:
    """One candidate as its training run leaves it."""

    recipe: Recipe
    net: nn.Module
    """In evaluation mode; logits ``(n, 10)`` for inputs ``(n, 1, 8, 8)``."""
    seed: int
    metrics: Mapping[str, float]
    """``validation_accuracy`` and ``validation_loss`` (nats)."""


def write_data(folder: Path) -> dict[str, Path]:
    """Write the three data files, ``x (n, 1, 8, 8)`` float32 from 0 to 1 and ``y (n,)`` int64; whole or not at all.

    2,000 training and 1,823 validation examples by 30 writers, split at random with a fixed seed, and 1,797 by 13
    others. A file that already has this content is left alone.
    """
    with (resources.files("flataudit.demo") / "data" / "optdigits8x8.npz").open("rb") as file:
        source = np.load(io.BytesIO(file.read()), allow_pickle=False)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(source["y_train"]))
    chosen = {
        "train": ("train", np.sort(order[:_TRAINING_EXAMPLES])),
        "validation": ("train", np.sort(order[_TRAINING_EXAMPLES:])),
        "unseen_writers": ("test", np.arange(len(source["y_test"]))),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (part, rows) in chosen.items():
        inputs = source[f"x_{part}"][rows, None].astype(np.float32) / 16
        content = io.BytesIO()
        np.savez_compressed(content, x=inputs, y=source[f"y_{part}"][rows].astype(np.int64))
        _replace(folder / DATA_FILES[name], content.getvalue())
    return {name: folder / file for name, file in DATA_FILES.items()}


def _replace(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def train_all(
    folder: Path, *, recipes: Sequence[Recipe] = RECIPES, seed: int = 0, progress: Progress | None = None
) -> tuple[Trained, ...]:
    """One candidate for each recipe, trained and validated on the files in the folder (`write_data` makes them).

    Raises:
        DataError: the files are missing or damaged.
    """
    data, validation = _load(folder, "train"), _load(folder, "validation")
    trained = []
    for index, recipe in enumerate(recipes):
        if progress:
            progress(recipe.name, index / len(recipes))
        net = train(recipe, *_tensors(data), seed=seed)
        trained.append(Trained(recipe, net, seed, _validated(net, validation)))
    return tuple(trained)


def accuracy(net: nn.Module, path: Path) -> float:
    """Share of the examples in one of the data files that the network gets right.

    Raises:
        DataError: the file is missing or damaged.
    """
    return _validated(net, NpzFile(path=str(path)).load(path.stem, "shifted"))["validation_accuracy"]


def _load(folder: Path, role: Role) -> AuditData:
    return NpzFile(path=str(folder / DATA_FILES[role])).load(role, role)


def _tensors(data: AuditData) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(data.inputs), torch.from_numpy(data.targets)


@torch.no_grad()
def _validated(net: nn.Module, data: AuditData) -> dict[str, float]:
    inputs, targets = _tensors(data)
    logits = net(inputs)
    return {
        "validation_accuracy": float((logits.argmax(dim=1) == targets).double().mean()),
        "validation_loss": float(nn.functional.cross_entropy(logits, targets)),
    }


def log_candidates(
    trained: Sequence[Trained],
    folder: Path,
    *,
    tracking_uri: str,
    model: str,
    experiment: str | None = None,
    artifact_root: str | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Log each candidate as a run with its model, and register it as a new version; the versions, in order.

    Args:
        trained: from `train_all`.
        folder: with the data files.
        tracking_uri: of MLflow: a server's, or ``sqlite:///…``.
        model: registered model; made if there is none.
        experiment: made if there is none; named after the model by default.
        artifact_root: where a new experiment keeps its files; None lets MLflow choose.
        progress: called before each candidate.
    """
    data = [_load(folder, "train"), _load(folder, "validation")]
    with _tracking(tracking_uri):
        client = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
        experiment_id = _experiment(client, experiment or f"{model}-training", artifact_root)
        _registered(client, model)
        versions = []
        for index, candidate in enumerate(trained):
            if progress:
                progress(candidate.recipe.name, index / len(trained))
            versions.append(_log(client, candidate, data, folder, experiment_id, model))
    return tuple(versions)


def name_first_champion(tracking_uri: str, model: str, version: str, *, alias: str = "champion") -> None:
    """Point the alias to the version, as a team does once by hand; an alias that is there already stays."""
    client = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
    if alias not in client.get_registered_model(model).aliases:
        client.set_registered_model_alias(model, alias, version)


@contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """Logging a model needs a tracking URI for the whole process; afterwards it is as it was, unset too."""
    was_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    before = mlflow.get_tracking_uri() if was_set else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it


def _experiment(client: mlflow.MlflowClient, name: str, artifact_root: str | None) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifact_root))


def _registered(client: mlflow.MlflowClient, model: str) -> None:
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log(
    client: mlflow.MlflowClient,
    candidate: Trained,
    data: Sequence[AuditData],
    folder: Path,
    experiment_id: str,
    model: str,
) -> str:
    recipe = candidate.recipe
    with mlflow.start_run(experiment_id=experiment_id, run_name=recipe.name, tags={"recipe": recipe.name}) as run:
        mlflow.log_params(recipe.model_dump(exclude={"name"}, exclude_none=True) | {"seed": candidate.seed})
        mlflow.log_metrics(dict(candidate.metrics))
        for one in data:
            _log_dataset(one, folder)
        logged = mlflow.pytorch.log_model(
            candidate.net,
            name="model",
            input_example=data[1].inputs[:2],  # two examples: a size of 1 would be exported as a constant
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
        )
    version = client.create_model_version(
        model,
        logged.model_uri,
        run_id=run.info.run_id,
        tags={"recipe": recipe.name},
        model_id=logged.model_id,  # a server does not find it by the URI alone
    )
    return str(version.version)


def _log_dataset(data: AuditData, folder: Path) -> None:
    """MLflow's own digest covers the first 10,000 values only; ours covers every byte."""
    assert data.targets is not None
    digest = data.digest.removeprefix("sha256:")
    dataset = from_numpy(
        data.inputs,
        source=LocalArtifactDatasetSource(str((folder / DATA_FILES[data.name]).resolve())),
        targets=data.targets,
        name=data.name,
        digest=digest[:36],
    )
    mlflow.log_input(dataset, context=data.role, tags={"flataudit.digest": data.digest, "flataudit.use": "npz"})
