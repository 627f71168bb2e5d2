"""Models that are no registered versions: the checkpoints of a run, and the last model of each run of a sweep."""

from collections.abc import Mapping

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import JsonValue

from flataudit.errors import ConfigurationError, NotFoundError
from flataudit.evidence import Candidate
from flataudit.registries.mlflow.client import is_missing

__all__ = ["check_run", "of_run", "of_sweep", "runs_of_sweep"]


def check_run(client: mlflow.MlflowClient, run_id: str) -> Run:
    """The run.

    Raises:
        NotFoundError: the registry has no such run.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not is_missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":  # an id of impossible form
            raise
        raise NotFoundError("a run", got=repr(run_id), remedy="copy the run's id from MLflow") from error


def of_run(client: mlflow.MlflowClient, run_id: str) -> list[Candidate]:
    """Every model that a run logged, by training step."""
    run = check_run(client, run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise NotFoundError(
            f"models logged by run {run_id}", got="none", remedy="log one with mlflow.pytorch.log_model in that run"
        )
    title = run.info.run_name
    logged = {output.model_id: client.get_logged_model(output.model_id) for output in outputs}
    return [
        Candidate(
            name=logged[output.model_id].name or output.model_id,
            run_id=run_id,
            model_id=output.model_id,
            uri=f"models:/{output.model_id}",
            step=output.step,
            title=f"{title} step {output.step}" if output.step else title,
        )
        for output in sorted(
            outputs, key=lambda o: (o.step or 0, logged[o.model_id].creation_timestamp or 0, o.model_id)
        )
    ]


def runs_of_sweep(client: mlflow.MlflowClient, chosen: Mapping[str, JsonValue]) -> list[Run]:
    """The runs that a sweep means, best first.

    Args:
        client: of the tracking server.
        chosen: ``experiment``, and perhaps ``filter``, ``order_by`` and ``top``.

    Raises:
        NotFoundError: there is no such experiment, or no run of it is meant.
        ConfigurationError: MLflow does not understand the filter or the order.
    """
    name = str(chosen["experiment"])
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise NotFoundError("an experiment", got=repr(name), remedy="copy its name from MLflow's list of experiments")
    order = [str(chosen["order_by"])] if chosen.get("order_by") else None
    condition = str(chosen.get("filter") or "")
    try:
        found = client.search_runs(
            [experiment.experiment_id], condition, max_results=int(str(chosen.get("top", 10))), order_by=order
        )
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        told = str(error).partition("\n")[0][:300]
        remedy = "write it as in MLflow's search box: params.optimiser = 'adam' and metrics.accuracy > 0.9"
        raise ConfigurationError("a filter and an order that MLflow understands", got=told, remedy=remedy) from error
    if not found:
        raise NotFoundError(f"runs of {name!r} with {condition or 'any params'}", got="none", remedy="widen the filter")
    return list(found)


def of_sweep(client: mlflow.MlflowClient, chosen: Mapping[str, JsonValue]) -> list[Candidate]:
    """The last model of each run of a sweep; runs that logged none are passed over.

    Raises:
        NotFoundError: there are no such runs, or none of them logged a model.
        ConfigurationError: the filter or the order is not understood.
    """
    runs = runs_of_sweep(client, chosen)
    found = [of_run(client, run.info.run_id)[-1] for run in runs if run.outputs and run.outputs.model_outputs]
    if not found:
        remedy = "log one with mlflow.pytorch.log_model in each run"
        raise NotFoundError(f"models logged by the {len(runs)} runs", got="none", remedy=remedy)
    return found
