"""Checkpoints and sweeps as candidates, against a real database."""

from pathlib import Path

import pytest

from flataudit.errors import ConfigurationError, NotFoundError
from flataudit.registries.mlflow import MlflowRegistry

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


def registry(trainer, **challengers):
    return MlflowRegistry(model="a sweep", tracking_uri=trainer.uri, challengers=challengers)


@pytest.fixture
def sweep(trainer, tmp_path: Path):
    """Four runs of which the third logged no model; the last of each has step 20."""
    runs, models = [], {}
    for number, accuracy in enumerate((0.7, 0.9, 0.95, 0.8)):
        run = trainer.run(f"run {number}", {"accuracy": accuracy})
        runs.append(run)
        for step in (20, 10) if number != 2 else ():
            models[number, step] = trainer.logged(tmp_path / f"{number}-{step}", run, step=step)
    return trainer, runs, models


def test_the_last_model_of_each_of_the_best_runs(sweep):
    trainer, runs, models = sweep
    found = registry(
        trainer, sweep={"experiment": "training", "order_by": "metrics.accuracy DESC", "top": 3}
    ).challengers()
    assert [(c.model_id, c.run_id, c.step) for c in found] == [
        (models[1, 20], runs[1], 20),
        (models[3, 20], runs[3], 20),
    ]


def test_a_filter_chooses_runs(sweep):
    trainer, runs, _ = sweep
    found = registry(trainer, sweep={"experiment": "training", "filter": "metrics.accuracy < 0.75"}).challengers()
    assert [c.run_id for c in found] == [runs[0]]


def test_a_sweep_that_is_none(sweep):
    trainer, _, _ = sweep
    for chosen, error, told in (
        ({"experiment": "trainig"}, NotFoundError, "an experiment, got 'trainig'"),
        ({"experiment": "training", "filter": "metrics.accuracy > 2"}, NotFoundError, "widen the filter"),
        ({"experiment": "training", "filter": "metrics.accuracy > 0.94"}, NotFoundError, "models logged by the 1 runs"),
        ({"experiment": "training", "filter": "accuracy is high"}, ConfigurationError, "as in MLflow's search box"),
        ({"experiment": "training", "order_by": "best first"}, ConfigurationError, "as in MLflow's search box"),
    ):
        with pytest.raises(error, match=told):
            registry(trainer, sweep=chosen).challengers()


def test_scores_of_a_sweep_go_to_the_run_of_each(sweep, audit, files):
    trainer, runs, _ = sweep
    scoring = registry(trainer, sweep={"experiment": "training", "order_by": "metrics.accuracy DESC"})
    receipt = scoring.record(audit(scoring.challengers(), kind="score"), files, promote=False)
    assert sorted(receipt.audit_runs.values()) == sorted([runs[0], runs[1], runs[3]])
    for number in (0, 1, 3):
        history = trainer.client.get_metric_history(runs[number], "flataudit/score")
        assert [metric.step for metric in history] == [20]
    assert trainer.client.get_metric_history(runs[2], "flataudit/score") == []


def test_versions_behind_several_aliases_each_once(trainer, tmp_path):
    for number in (1, 2, 3):
        trainer.version(tmp_path / f"m{number}", "fraud")
    for alias, version in (("champion", "1"), ("blue", "2"), ("green", "3"), ("canary", "2")):
        trainer.client.set_registered_model_alias("fraud", alias, version)
    chosen = MlflowRegistry(
        model="fraud", tracking_uri=trainer.uri, challengers={"aliases": ["canary", "blue", "champion", "green"]}
    )
    assert [c.version for c in chosen.challengers()] == ["2", "3"]
    lacking = MlflowRegistry(model="fraud", tracking_uri=trainer.uri, challengers={"aliases": ["blue", "red"]})
    with pytest.raises(NotFoundError, match="the alias 'red'"):
        lacking.challengers()
