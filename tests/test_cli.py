"""The command line on a real registry with real programs: verdicts, exit codes, and every refusal in one sentence."""

import errno
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flataudit import archive, cli, examination

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and torch.export's own

MLMODEL = "flavors:\n  pytorch: {model_data: data}\n  python_function: {loader_module: mlflow.pytorch}\n"
CENTRES = np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
POLICY = """
model: m
challengers: {newest: 9}
data: {validation: {use: npz, path: v.npz}, train: {use: npz, path: v.npz}}
probes: [accuracy, {use: hessian_trace, relative_error: 0.3}, corruption, {use: weight_noise, draws: 2}]
report: {formats: [json, md]}
"""


def linear(scale: float = 1.0, poor: bool = False, outputs: int = 3) -> nn.Module:
    """The best linear net there is; a poor one never answers the second class."""
    net = nn.Linear(4, outputs, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(CENTRES[:outputs].copy()) * scale)
        if poor:
            net.weight[1] = net.weight[0] / 2
    return net.eval()


def program(net: nn.Module, example: torch.Tensor | None = None) -> bytes:
    """The module as MLflow stores it: exported, with a free batch size."""
    x = torch.zeros(2, 4) if example is None else example
    exported = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


class Poisoned(nn.Module):
    """Answers NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] * self.scale / (x[:, :3] * 0)


class Dropping(nn.Module):
    """Dropout left alive."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.net(x), 0.5, training=True)


@dataclass
class Desk:
    """A folder with data, policy and a registry; `run` is the command line."""

    folder: Path
    trainer: Any
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def register(self, net: nn.Module | bytes, title: str, *, files: dict[str, str | bytes] | None = None) -> str:
        content = net if isinstance(net, bytes) else program(net)
        files = files or {"MLmodel": MLMODEL, "data/model.pt2": content}
        return str(self.trainer.version(self.folder / title, "m", title=title, files=files).version)

    def data(self, **changes: Any) -> None:
        generator = np.random.default_rng(0)
        y = generator.integers(0, 3, 400)
        x = (CENTRES[y] + generator.standard_normal((400, 4))).astype(np.float32)
        np.savez(self.folder / "v.npz", **({"x": x, "y": y} | changes))

    def policy(self, text: str = POLICY) -> None:
        (self.folder / "flataudit.yaml").write_text(text)

    def champion(self, version: str) -> None:
        self.trainer.client.set_registered_model_alias("m", "champion", version)

    @property
    def alias(self) -> str | None:
        return {k: str(v) for k, v in self.trainer.client.get_registered_model("m").aliases.items()}.get("champion")

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self.patch.setattr(sys, "argv", ["flataudit", *arguments])
        self.patch.setenv("MLFLOW_TRACKING_URI", self.trainer.uri)  # MLflow unsets it when its default is unset
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = self.capture.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    def gate(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        code, out, err = self.run("gate", "--json", "--engine", "local", *arguments)
        return code, json.loads(out), err


@pytest.fixture
def desk(
    trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    made = Desk(tmp_path, trainer, capsys, monkeypatch)
    made.data()
    made.policy()
    yield made


@pytest.fixture
def pair(desk: Desk) -> Desk:
    """A poor champion and a good challenger."""
    desk.champion(desk.register(linear(poor=True), "poor"))
    desk.register(linear(), "good")
    return desk


def reasons(document: dict[str, Any], version: str) -> str:
    found = next(c for c in document["candidates"] if c["version"] == version)
    return " ".join(str(m.get("reason")) for m in found["measurements"])


def test_a_better_challenger_is_promoted_by_the_isolated_worker(pair: Desk) -> None:
    code, out, err = pair.run("gate", "--json")
    document = json.loads(out)
    assert (code, document["decision"], document["promoted"], pair.alias) == (0, "promote", "2", "2")
    version = pair.trainer.client.get_model_version("m", "2")
    assert version.tags["flataudit.decision"] == "promote"
    assert version.tags["flataudit.digest"] == document["candidates"][1]["digest"]
    run = pair.trainer.client.get_run(version.run_id)
    assert run.data.metrics["flataudit/validation_accuracy"] > 0.7
    assert run.data.metrics["flataudit/validation_accuracy_lo"] < run.data.metrics["flataudit/validation_accuracy_hi"]
    assert "report:" not in out and "(100%)" in err
    again, document, _ = pair.gate()
    assert (again, document["decision"], pair.alias) == (1, "reject", "2")


def test_a_dry_run_decides_and_writes_nothing(pair: Desk) -> None:
    code, document, _ = pair.gate("--dry-run")
    assert (code, document["decision"], pair.alias) == (0, "promote", "1")
    assert "flataudit.decision" not in pair.trainer.client.get_model_version("m", "2").tags


def test_flat_but_worse_is_not_promoted(desk: Desk) -> None:
    desk.champion(desk.register(linear(), "good"))
    desk.register(linear(scale=50, poor=True), "flat")
    code, document, _ = desk.gate()
    trace = {
        c["version"]: next(m["estimate"] for m in c["measurements"] if m["metric"] == "hessian_trace")
        for c in document["candidates"]
    }
    assert trace["2"] < trace["1"]
    assert (code, document["decision"], desk.alias) == (1, "reject", "1")


def test_a_first_champion_needs_no_other(desk: Desk) -> None:
    desk.register(linear(), "good")
    assert desk.gate()[0] == 0 and desk.alias == "1"


def test_the_table_says_who_won_in_words(pair: Desk) -> None:
    code, out, err = pair.run("gate", "--engine", "local", "-q")
    assert code == 0 and "PROMOTE" in out and "v2" in out and "report:" in err
    folder = next((pair.folder / "flataudit-audits").iterdir())
    assert "PROMOTE" not in pair.run("report", str(folder), "--format", "junit")[1]
    assert "v2" in pair.run("report", str(folder))[1]
    code, out, _ = pair.run("compare", f"{folder}:v1", f"{folder}:v2", "--json")
    assert code == 0 and len(json.loads(out)["candidates"]) == 2


def test_score_logs_to_the_run(desk: Desk) -> None:
    run_id = desk.trainer.run("one")
    desk.trainer.logged(desk.folder / "one", run_id, files={"MLmodel": MLMODEL, "data/model.pt2": program(linear())})
    code, out, _ = desk.run("score", "--run-id", run_id, "--data", "v.npz", "--engine", "local", "--json")
    assert code == 0 and json.loads(out)["schema"] == "flataudit/score/1"
    assert desk.trainer.client.get_run(run_id).data.metrics["flataudit/validation_accuracy"] > 0.7


def test_audit_watches_the_limits(pair: Desk) -> None:
    limit = "policy: {criteria: [{metric: validation_accuracy, at_least: 0.99}]}\n"
    assert pair.run("audit", "--engine", "local", "-q")[0] == 0
    pair.policy(POLICY + limit)
    assert pair.run("audit", "--engine", "local", "-q")[0] == 1


def test_init_writes_a_policy_that_is_read_again(pair: Desk) -> None:
    (pair.folder / "flataudit.yaml").unlink()
    assert pair.run("init", "--model", "m")[0] == 0
    assert pair.run("init", "--model", "m")[0] == 2
    from flataudit.config import load_config

    assert load_config(pair.folder / "flataudit.yaml").model == "m"


def test_doctor_probes_schema_and_plan_answer(desk: Desk) -> None:
    code, out, _ = desk.run("doctor", "--json")
    assert code == 0 and all(check["ok"] for check in json.loads(out)["checks"])
    assert "hessian_trace" in desk.run("probes")[1]
    assert json.loads(desk.run("schema")[1])["title"] == "AuditConfig"
    assert "4707" in desk.run("plan", "--json")[1]


# ── Bad input: one sentence, the right code, the registry untouched ──


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (Poisoned, "finite outputs"),
        (lambda: linear(outputs=2), "classes"),
        (Dropping, "model.eval()"),
        (lambda: program(linear())[:900], "damaged"),
    ],
)
def test_a_bad_challenger_is_rejected_with_the_reason(
    desk: Desk, net: Callable[[], nn.Module | bytes], told: str
) -> None:
    desk.champion(desk.register(linear(), "good"))
    desk.register(net(), "bad")
    code, document, _ = desk.gate()
    assert (code, document["decision"], desk.alias) == (1, "reject", "1")
    assert told in reasons(document, "2")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"MLmodel": MLMODEL, "data/model.pth": b"\x80\x04."}, "--trust"),
        ({"MLmodel": "flavors:\n  spacy: {model_data: model}\n", "model": b"x"}, "not yet audited"),
    ],
)
def test_other_flavours_are_evidence(desk: Desk, files: dict[str, str | bytes], told: str) -> None:
    desk.champion(desk.register(linear(), "good"))
    desk.register(b"", "other", files=files)
    code, document, _ = desk.gate()
    assert (code, desk.alias) == (1, "1") and told in reasons(document, "2")


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda d: d.policy(POLICY + "polcy: 3\n"), 2, "did you mean policy?"),
        (lambda d: d.policy(POLICY.replace("[accuracy", "[accuracy, accuracy")), 2, "'accuracy' twice"),
        (lambda d: (d.folder / "v.npz").unlink(), 2, "v.npz"),
        (lambda d: d.data(x=np.zeros((0, 4)), y=np.zeros(0, dtype=int)), 2, "example"),
        (lambda d: d.data(x=np.full((400, 4), np.nan)), 2, "NaN"),
        (lambda d: d.data(y=np.zeros(7, dtype=int)), 2, "400"),
        (lambda d: d.policy(POLICY.replace("newest: 9", "alias: nobody")), 2, "'nobody'"),
        (lambda d: d.policy(POLICY.replace("model: m", "model: mm")), 2, "did you mean m?"),
    ],
)
def test_a_refusal_is_one_sentence(pair: Desk, change: Callable[[Desk], object], code: int, told: str) -> None:
    change(pair)
    ended, document, err = pair.gate()
    assert (ended, document["exit_code"]) == (code, code) and told in err
    assert err.count("error: expected") == 1 and pair.alias == "1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.data(y=np.arange(400) % 8), "classes"),
        (lambda d: d.data(x=np.zeros((400, 5), dtype=np.float32)), "(n, 5)"),
        (lambda d: d.policy(POLICY + "outputs: probabilities\n"), "declare `outputs: logits`"),
    ],
)
def test_what_no_model_can_answer_decides_nothing(pair: Desk, change: Callable[[Desk], object], told: str) -> None:
    change(pair)
    code, document, _ = pair.gate()
    assert (code, document["decision"], pair.alias) == (3, "inconclusive", "1")
    assert told in reasons(document, "1")


def test_a_run_without_models(desk: Desk) -> None:
    code, _, err = desk.run("score", "--run-id", desk.trainer.run("empty"), "--data", "v.npz")
    assert code == 2 and "log one with mlflow.pytorch.log_model" in err


def test_a_registry_that_does_not_answer_fails_in_seconds(desk: Desk) -> None:
    began = time.monotonic()
    code, _, err = desk.run("gate", "--tracking-uri", "http://user:secret@127.0.0.1:9")
    assert code == 3 and "127.0.0.1:9" in err and "secret" not in err
    assert time.monotonic() - began < 60


def test_a_full_disk_leaves_the_registry_alone(pair: Desk) -> None:
    def full(path: Path, arrays: archive.Arrays) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pair.patch.setattr(archive, "write_arrays", full)
    code, document, err = pair.gate()
    assert code == 3 and "No space left on device" in err and document["exit_code"] == 3
    assert pair.alias == "1" and "flataudit.decision" not in pair.trainer.client.get_model_version("m", "2").tags


# ── Nothing twice, and why ──


def test_the_same_candidates_again_are_decided_the_same_without_measuring(pair: Desk) -> None:
    first, document, _ = pair.gate("--dry-run")
    again, other, told = pair.gate("--dry-run")
    assert first == again == 0 and not document["reused"]
    probes = {m["probe"] for c in document["candidates"] for m in c["measurements"] if m["probe"]}
    assert {label: set(names) for label, names in other["reused"].items()} == {"v1": probes, "v2": probes}
    assert document["candidates"] == other["candidates"] and document["decision"] == other["decision"]
    assert "probes known" in told
    third, fresh, _ = pair.gate("--dry-run", "--fresh")
    assert third == 0 and not fresh["reused"]
    assert fresh["candidates"] != document["candidates"]  # other seconds, at least


def test_a_changed_policy_measures_nothing_and_a_changed_probe_only_itself(pair: Desk) -> None:
    pair.gate("--dry-run")
    pair.policy(POLICY + "policy: {score_lead: 0.01}\n")
    _, document, _ = pair.gate("--dry-run")
    assert set(document["reused"]) == {"v1", "v2"}
    pair.policy(POLICY.replace("relative_error: 0.3", "relative_error: 0.5"))
    _, document, _ = pair.gate("--dry-run")
    assert "accuracy" in document["reused"]["v1"] and "hessian_trace" not in document["reused"]["v1"]


def test_an_interrupted_gate_goes_on_where_it_stopped(pair: Desk) -> None:
    """It ends at the second probe of the second candidate: what was measured before is known afterwards."""
    run, calls = examination._run, []

    def measured(*arguments: Any) -> Any:
        calls.append(arguments[0])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return run(*arguments)

    with pair.patch.context() as patch:
        patch.setattr(examination, "_run", measured)
        code, _, err = pair.run("gate", "--json", "--engine", "local", "--dry-run")
    assert code == 130 and "interrupted" in err
    code, document, _ = pair.gate("--dry-run")
    known = sum(len(names) for names in document["reused"].values())
    assert code == 0 and known == 5


def test_explain_tells_each_challengers_story(pair: Desk) -> None:
    pair.gate("--dry-run", "--out", "one")
    code, out, _ = pair.run("explain", "one")
    said = " ".join(out.split())
    assert code == 0 and "v2 is promoted." in said and "Its validation_accuracy is" in said and "inferior" in said
    code, out, _ = pair.run("explain", "one", "--candidate", "v2", "--json")
    (told,) = json.loads(out)["explanations"]
    assert told["verdict"] == "promote" and [line["verdict"] for line in told["lines"]][-1] == "pass"
    code, _, err = pair.run("explain", "one", "--candidate", "v7")
    assert code == 2 and "v7" in err


def test_the_ledger_tells_what_was_decided_and_can_undo_it(pair: Desk) -> None:
    assert pair.gate()[0] == 0 and pair.alias == "2"
    code, out, _ = pair.run("history", "m", "--json")
    found = json.loads(out)
    assert code == 0 and [(e["kind"], e["ending"]) for e in found["entries"]] == [("promote", "done")]
    assert found["entries"][0]["validation_use"] == 1 and found["entries"][0]["alpha"] == pytest.approx(
        0.0304, abs=1e-4
    )
    code, out, _ = pair.run("rollback", "m", "--reason", "it was too sure", "--json")
    assert code == 0 and pair.alias == "1" and json.loads(out)["sequence"] == 2
    undone = json.loads(pair.run("history", "m", "--json")[1])["entries"][1]
    assert undone["kind"] == "rollback" and "it was too sure" in undone["why"]
    code, out, _ = pair.run("history", "m")
    assert code == 0 and "the chain of 2 holds" in out and "rollback" in out
    assert pair.run("resume")[0] == 0
    pair.champion("2")
    code, out, _ = pair.run("history", "m")
    assert code == 1 and "DRIFT" in out


def test_the_validation_set_keeps_account_over_gates(pair: Desk) -> None:
    """A question asked again is free; a new one costs, and the level falls."""
    uses = []
    for _ in range(2):
        _, document, _ = pair.gate("--dry-run")
        uses.append(document["validation_use"])
    pair.register(linear(scale=0.7), "third")
    for _ in range(2):
        pair.gate()
        pair.champion("1")
    history = json.loads(pair.run("history", "m", "--json")[1])
    told = [e["validation_use"] for e in history["entries"] if e["validation_use"]]
    assert uses == [1, 1] and told == [1, 1]
    pair.register(linear(scale=0.5), "fourth")
    pair.gate()
    history = json.loads(pair.run("history", "m", "--json")[1])
    assert [e["validation_use"] for e in history["entries"] if e["validation_use"]] == [1, 1, 2]
