"""Who is champion and who challenges, against a real database."""

from pathlib import Path

import pytest

from flataudit.errors import ConfigurationError, NotFoundError
from flataudit.registries.mlflow import MlflowRegistry, selection

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


def registry(trainer, model="fraud", **params):
    return MlflowRegistry(model=model, tracking_uri=trainer.uri, **params)


@pytest.fixture
def shelf(trainer, tmp_path: Path):
    """Five versions of one model: the second is champion, odd ones are tagged."""
    made = [
        trainer.version(
            tmp_path / f"m{i}", "fraud", title=f"run {i}", tags={"stage": "new", "i": str(i)} if i % 2 else {}
        )
        for i in range(1, 6)
    ]
    trainer.client.set_registered_model_alias("fraud", "champion", "2")
    return trainer, made


def versions(candidates):
    return [candidate.version for candidate in candidates]


def test_the_champion_is_what_the_alias_points_to(shelf):
    trainer, made = shelf
    champion = registry(trainer).champion()
    assert champion is not None
    assert (champion.name, champion.version, champion.title) == ("fraud", "2", "run 2")
    assert champion.run_id == made[1].run_id
    assert champion.model_id == made[1].source.removeprefix("models:/")
    assert champion.uri == "models:/fraud/2"


def test_only_an_absent_alias_means_no_champion(shelf):
    trainer, _ = shelf
    assert registry(trainer, champion_alias="nobody").champion() is None
    for impossible in ("latest", "v2", "the best", ""):
        with pytest.raises(ConfigurationError, match="an alias that MLflow allows"):
            registry(trainer, champion_alias=impossible).champion()


def test_an_unknown_model_names_the_nearest(shelf):
    trainer, _ = shelf
    with pytest.raises(NotFoundError, match="did you mean fraud"):
        registry(trainer, "frauds").champion()
    with pytest.raises(NotFoundError, match="register a version"):
        registry(trainer, "xyz").challengers()


def test_by_alias(shelf):
    trainer, _ = shelf
    with pytest.raises(NotFoundError, match=r"'challenger' on 'fraud'.*aliases there are: champion"):
        registry(trainer).challengers()
    trainer.client.set_registered_model_alias("fraud", "challenger", "4")
    assert versions(registry(trainer).challengers()) == ["4"]
    assert versions(registry(trainer, challengers={"alias": "champion"}).challengers()) == []


def test_the_newest_that_are_not_the_champion(shelf, monkeypatch):
    trainer, _ = shelf
    assert versions(registry(trainer, challengers={"newest": 4}).challengers()) == ["5", "4", "3", "1"]
    monkeypatch.setattr(selection, "_PAGE", 2)
    assert versions(registry(trainer, challengers={"newest": 4}).challengers()) == ["5", "4", "3", "1"]


def test_by_number(shelf):
    trainer, _ = shelf
    assert versions(registry(trainer, challengers={"versions": [3, 1, 3, 2]}).challengers()) == ["3", "1"]
    with pytest.raises(NotFoundError, match="version 9 of 'fraud', got only 1, 2, 3, 4, 5"):
        registry(trainer, challengers={"versions": [3, 9]}).challengers()


def test_by_all_tags(shelf):
    trainer, _ = shelf
    assert versions(registry(trainer, challengers={"tag": {"stage": "new"}}).challengers()) == ["5", "3", "1"]
    assert versions(registry(trainer, challengers={"tag": {"stage": "new", "i": "3"}}).challengers()) == ["3"]
    with pytest.raises(NotFoundError, match="with tags"):
        registry(trainer, challengers={"tag": {"stage": "new", "i": "2"}}).challengers()


def test_the_models_of_a_run_by_step(trainer, tmp_path):
    run = trainer.run("checkpoints")
    models = {step: trainer.logged(tmp_path / f"s{step}", run, step=step) for step in (20, 10, 0)}
    found = registry(trainer, "run R", challengers={"run": run}).challengers()
    assert [(c.model_id, c.step, c.version, c.run_id) for c in found] == [
        (models[step], step, None, run) for step in (0, 10, 20)
    ]
    assert len({c.label for c in found}) == 3


def test_runs_without_models_and_unknown_runs(trainer):
    empty = trainer.run()
    with pytest.raises(NotFoundError, match="models logged by run"):
        registry(trainer, challengers={"run": empty}).challengers()
    for wrong in ("0" * 32, "../x", "no such run"):
        with pytest.raises(NotFoundError, match="expected a run"):
            registry(trainer, challengers={"run": wrong}).challengers()


def test_names_that_need_quoting(trainer, tmp_path):
    name = "it's 100 % <b>ours"  # a slash or a colon MLflow refuses
    trainer.version(tmp_path / "a", "it", title="other")
    trainer.version(tmp_path / "b", name, title="<script>\n|")
    (found,) = registry(trainer, name, challengers={"newest": 3}).challengers()
    assert (found.name, found.version, found.title) == (name, "1", "<script>\n|")
    (tmp_path / "fetched").mkdir()
    assert registry(trainer, name).fetch(found, tmp_path / "fetched").flavour == "pytorch"


def test_a_choice_that_is_none(shelf):
    trainer, _ = shelf
    with pytest.raises(ConfigurationError, match="alias, aliases, newest"):
        registry(trainer, challengers={}).challengers()
