"""The worked third-party probe, installed for real beside flataudit: found by name, measured, conforming."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "flataudit-prediction-entropy"
MEASURE = """\
import json
import numpy as np
from flataudit.contracts import Meter
from flataudit.specs import Budget, Spec
from flataudit.data.examples import checked
from flataudit.examination import make_probe, measure_all

class Undecided:
    task, meter, batch_size, dtype, device = "multiclass", Meter(), 8, "float64", "cpu"
    def predict(self, inputs):
        self.meter.forward += len(inputs)
        return np.log(np.full((len(inputs), 4), 0.25))

data = checked("validation", "validation", np.zeros((10, 2)), np.zeros(10, dtype=int), source="test")
probes = [(name, make_probe(Spec(use=name))) for name in ("accuracy", "prediction_entropy")]
readings = measure_all(Undecided(), [data], probes, seed=0, budget=Budget(), announce=lambda what, share: None)
print(json.dumps([reading.measurement.model_dump(mode="json") for reading in readings]))
"""
CONFORM = """\
from flataudit.examination import make_probe
from flataudit.specs import Spec
from flataudit.testing import check_probe
check_probe(make_probe(Spec(use="prediction_entropy")))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the plugin is installed, in a folder of its own beside flataudit's."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--target", str(target), str(PLUGIN)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(target), "PYTHONDONTWRITEBYTECODE": "1"}


def ran(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120, cwd=PLUGIN.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def listed(environment: dict[str, str]) -> dict[str, dict[str, object]]:
    program = "import sys; sys.argv[0] = 'flataudit'; from flataudit.cli import main; main()"
    document = json.loads(ran(environment, "-c", program, "probes", "--json"))
    return {row["name"]: row for row in document["plugins"] if row["group"] == "probes"}


def test_it_is_listed_once_installed(installed: dict[str, str]) -> None:
    found = listed(installed)["prediction_entropy"]
    assert (found["metrics"], found["data"], found["needs"]) == (["prediction_entropy"], "validation", "predictor")
    assert "error" not in found


def test_without_the_package_it_is_not_there() -> None:
    assert "prediction_entropy" not in listed(dict(os.environ))


def test_it_runs_beside_a_built_in_probe(installed: dict[str, str]) -> None:
    measured = {one["metric"]: one for one in json.loads(ran(installed, "-c", MEASURE))}
    found = measured["prediction_entropy"]
    assert found["estimate"] == pytest.approx(math.log(4), rel=1e-12)
    assert (found["probe"], found["cost"]["forward"], found["n"]) == ("prediction_entropy", 1.0, 10)
    assert "validation_accuracy" in measured


def test_it_conforms(installed: dict[str, str]) -> None:
    ran(installed, "-c", CONFORM)


def test_its_own_tests_pass(installed: dict[str, str], tmp_path: Path) -> None:
    told = ran(
        installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(PLUGIN / "pyproject.toml"), str(PLUGIN)
    )
    assert " passed" in told and "failed" not in told
