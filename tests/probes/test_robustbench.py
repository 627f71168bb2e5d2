"""A published table through the corruption probe: RobustBench's printed numbers to the last digit."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def _benchmark() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "robustbench_tables.py"
    spec = importlib.util.spec_from_file_location("robustbench_tables", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = _benchmark()
PUBLISHED = TABLES.cells(Path(__file__).parent / "data" / "robustbench_imagenet.csv")


def test_a_resnet_through_the_probe() -> None:
    """Accuracy 39.48 and mCE 76.38 over 15 corruptions at 5 severities."""
    estimate, kept = TABLES.replayed(PUBLISHED["Standard_R50"], 5000)
    assert kept == pytest.approx(PUBLISHED["Standard_R50"], abs=1e-12)
    assert TABLES.printed(estimate) == "39.48"
    assert TABLES.printed(TABLES.mean_corruption_error(kept, PUBLISHED["AlexNet"])) == "76.38"


def test_the_mean_corruption_error_of_a_better_model() -> None:
    error = TABLES.mean_corruption_error(PUBLISHED["Tian2022Deeper_DeiT-B"], PUBLISHED["AlexNet"])
    assert TABLES.printed(error) == "41.70"
    assert TABLES.mean_corruption_error(PUBLISHED["AlexNet"], PUBLISHED["AlexNet"]) == 1


def test_accuracies_that_are_not_of_whole_images_are_refused() -> None:
    with pytest.raises(AssertionError, match="whole images"):
        TABLES.Scripted(np.full((15, 5), 0.12345), 5000)
