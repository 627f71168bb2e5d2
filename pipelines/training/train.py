"""The training step of the demo's pipeline: one candidate for each recipe, logged to MLflow and registered.

python pipelines/training/train.py --tracking-uri http://127.0.0.1:5000 --model digits --dir work
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flataudit.demo.training import log_candidates, train_all, write_data


def _told(what: str) -> Callable[[str, float], None]:
    return lambda recipe, share: print(f"{what} {recipe} ({share:.0%})", file=sys.stderr)


def main(
    tracking_uri: Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="of the MLflow registry")],
    directory: Annotated[Path, typer.Option("--dir", help="folder for the data files")] = Path(),
    model: Annotated[str, typer.Option(help="registered model")] = "digits",
    seed: int = 0,
) -> None:
    """Write the data, train, log, register; print the new versions."""
    write_data(directory)
    trained = train_all(directory, seed=seed, progress=_told("training"))
    versions = log_candidates(trained, directory, tracking_uri=tracking_uri, model=model, progress=_told("logging"))
    for candidate, version in zip(trained, versions, strict=True):
        print(f"{model} v{version}  {candidate.recipe.name}  {candidate.metrics['validation_accuracy']:.4f}")


if __name__ == "__main__":
    typer.run(main)
