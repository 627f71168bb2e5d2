"""`history`, `rollback` and `resume` as a person and a pipeline use them."""

import json

import pytest
import typer
from typer.testing import CliRunner

from flataudit import cli_ledger
from flataudit.errors import ConfigurationError, NotFoundError
from flataudit.journal import Journal, state_folder
from flataudit.registries.mlflow import MlflowRegistry
from flataudit.registries.mlflow.carrying import carried
from flataudit.registries.mlflow.ledger_run import LedgerRun, opened
from flataudit.registries.mlflow.promotion import Promoter

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of SQLAlchemy and of type hints


@pytest.fixture
def run(trainer, monkeypatch):
    """``run("history", "fraud")``: exit code and standard output; ``run.json`` reads it."""
    app = typer.Typer()
    cli_ledger.register(app)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", trainer.uri)  # MLflow unsets it when its default is unset
        ended = CliRunner().invoke(app, list(arguments))
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.exit_code, ended.stdout

    def read(*arguments):
        code, out = invoke(*arguments, "--json")
        return code, json.loads(out)

    invoke.json = read
    return invoke


@pytest.fixture
def fraud(trainer, promotion, tmp_path):
    """Version 1, then 2 became champion; ``fraud(champion, challenger)`` decides once more."""
    registry = MlflowRegistry(model="fraud", tracking_uri=trainer.uri, challengers={"newest": 9})
    for number in (1, 2, 3):
        trainer.version(tmp_path / f"m{number}", "fraud", files={"MLmodel": f"flavors: {{f{number}: {{}}}}"})
    found = {}
    for candidate in registry.challengers():
        (tmp_path / candidate.label).mkdir()
        found[candidate.version] = registry.fetch(candidate, tmp_path / candidate.label)
    client = trainer.client
    promoter = Promoter(opened(client, trainer.uri, "fraud", Journal(state_folder())), trainer.uri, 1.0)

    def decide(champion, challenger):
        draft = promotion("fraud", found[challenger], found[champion] if champion else None, f"{champion}-{challenger}")
        return carried(promoter, draft)

    decide(None, "1")
    decide("1", "2")
    return decide


def test_history(run, fraud):
    code, out = run("history", "fraud")
    assert code == 0
    assert "Decisions on fraud" in out and "the chain of 2 holds; 'champion' is version 2" in out
    code, told = run.json("history", "fraud")
    assert (code, told["schema"], told["champion"]["version"]) == (0, "flataudit/history/1", "2")
    assert [(e["sequence"], e["kind"], e["target"]["version"], e["ending"]) for e in told["entries"]] == [
        (1, "promote", "1", "done"),
        (2, "promote", "2", "done"),
    ]
    assert (told["drift"], told["unfinished"], told["problems"]) == (False, [], [])


def test_history_says_that_somebody_moved_the_alias(run, fraud, trainer):
    trainer.client.set_registered_model_alias("fraud", "champion", "3")
    code, out = run("history", "fraud")
    assert code == 1 and "DRIFT  the ledger says version 2, the alias 'champion' points to version 3" in out
    assert run.json("history", "fraud")[1]["drift"] is True


def test_history_of_a_broken_chain(run, fraud, trainer, monkeypatch):
    def rewritten(book):
        params = dict(trainer.client.get_run(book.run_id).data.params)
        return params | {"decision.000001": params["decision.000001"].replace("a test", "a liar")}

    monkeypatch.setattr(LedgerRun, "_params", rewritten)
    code, out = run("history", "fraud")
    assert code == 3 and "BROKEN  entry 1 was changed" in out


def test_history_without_decisions_and_without_model(run, trainer):
    trainer.client.create_registered_model("new")
    code, out = run("history", "new")
    assert code == 0 and "no decision on new is in a ledger yet" in out
    with pytest.raises(NotFoundError, match="a registered model"):
        run("history", "nope")


def test_names_are_shown_harmlessly(run, fraud, trainer, monkeypatch):
    run("rollback", "fraud", "--reason", "\x1b[31mred [bold]bold\u202e")
    code, out = run("history", "fraud")
    assert code == 0 and "\x1b[31mred" not in out and "\u202e" not in out and "[bold]" in out


def test_rollback_and_its_refusals(run, fraud):
    code, told = run.json("rollback", "fraud", "--reason", "it fails")
    assert (code, told["promoted"], told["sequence"]) == (0, "1", 3)
    code, out = run("rollback", "fraud", "--to", "2")
    assert code == 0 and "'champion' of fraud is version 2 again (entry 4)" in out
    for version in ("2", "3"):
        with pytest.raises(ConfigurationError):
            run("rollback", "fraud", "--to", version)


def test_resume(run, fraud, trainer, monkeypatch):
    assert run("resume") == (0, "nothing is open\n") == run("resume", "fraud")
    with monkeypatch.context() as broken:
        broken.setattr(Promoter, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fraud("2", "3")
    code, out = run("history", "fraud")
    assert code == 1 and "UNFINISHED  entry 3, promote of version 3" in out
    code, told = run.json("resume")
    assert code == 0
    assert [(one["sequence"], one["ending"]) for one in told["resumed"]] == [(3, "done")]
    assert str(trainer.client.get_registered_model("fraud").aliases["champion"]) == "3"
    assert run.json("resume") == (0, {"schema": "flataudit/resume/1", "resumed": []})


def test_resume_that_closes_without_moving(run, fraud, trainer, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Promoter, "finish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fraud("2", "3")
    trainer.client.set_registered_model_alias("fraud", "champion", "1")
    code, out = run("resume", "fraud")
    assert code == 1 and "promote of version 3 (entry 3) conflict" in out
    assert str(trainer.client.get_registered_model("fraud").aliases["champion"]) == "1"
