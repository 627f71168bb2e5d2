"""One registry with a model of every kind: what a gate measures of each, what not, and why.

Twelve versions of one registered model, logged as people log them, and a dry-run gate over all. Nothing is downloaded.

    OMP_NUM_THREADS=1 python benchmarks/flavours.py > benchmarks/results/flavours.txt
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
import torch
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types import Schema, TensorSpec
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from flataudit.backends import weights

MODEL = "digits"
SHOWN = ("validation_accuracy", "corruption_accuracy", "adversarial_accuracy", "hessian_trace", "sharpness_average")
ADAM = "sklearn.neural_network._stochastic_optimizers.AdamOptimizer"
"""MLflow writes no such network without being told so; flataudit reads it by a list of its own."""
NET = """
from torch import nn


def build(width):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
"""
POLICY = f"""
model: {MODEL}
champion: champion
challengers: {{newest: 20}}
data:
  train: {{use: npz, path: train.npz}}
  validation: {{use: npz, path: validation.npz}}
architecture: {{use: "net:build", params: {{width: 32}}}}
budget: {{passes: 2000, seconds: 600}}
trust: true
"""


class Called(mlflow.pyfunc.PythonModel):
    """A network behind MLflow's general call."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def predict(self, context, model_input, params=None):
        """Probabilities; without type hints, which MLflow would read as a schema."""
        with torch.no_grad():
            return self.net(torch.tensor(np.asarray(model_input), dtype=torch.float32)).softmax(1).numpy()


def trained(x: np.ndarray, y: np.ndarray) -> nn.Module:
    """A tanh network of 2,410 parameters."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-4)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        optimiser.step()
    return net.eval()


def onnx_bytes(net: nn.Module, x: np.ndarray, dynamo: bool) -> Any:
    """The network by one of torch's two exporters."""
    import onnx

    buffer = io.BytesIO()
    if dynamo:
        program = torch.onnx.export(
            net, (torch.tensor(x[:2]),), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False
        )
        assert program is not None
        program.save(buffer)
    else:
        torch.onnx.export(
            net, (torch.tensor(x[:2]),), buffer, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    return onnx.load_from_string(buffer.getvalue())


def loggers(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], object]]:
    """How each version is logged, by what it is called in the table."""
    net = trained(x, y)
    bare: dict[str, Any] = {"pip_requirements": []}
    tensor = ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 64))]))
    frame = infer_signature(x[:3], y[:3])
    forest = RandomForestClassifier(100, random_state=0).fit(x, y)
    logistic = LogisticRegression(max_iter=500).fit(x, y)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((32,), alpha=0.01, max_iter=300, random_state=0)).fit(x, y)
    script = torch.jit.trace(net, torch.tensor(x[:2]), check_trace=False)
    found: dict[str, Callable[[], object]] = {
        "pt2": lambda: mlflow.pytorch.log_model(net, name="m", input_example=x[:2], **bare),
        "pickled module": lambda: mlflow.pytorch.log_model(net, name="m", serialization_format="pickle", **bare),
        "TorchScript": lambda: mlflow.pytorch.log_model(script, name="m", serialization_format="pickle", **bare),
        "state dict": lambda: Model.log(None, weights, name="m", state_dict=net.state_dict()),
        "ONNX, TorchScript exporter": lambda: mlflow.onnx.log_model(onnx_bytes(net, x, False), name="m", **bare),
        "ONNX, dynamo exporter": lambda: mlflow.onnx.log_model(onnx_bytes(net, x, True), name="m", **bare),
        "logistic regression": lambda: mlflow.sklearn.log_model(logistic, name="m", signature=frame, **bare),
        "MLP pipeline": lambda: mlflow.sklearn.log_model(
            pipeline, name="m", signature=frame, skops_trusted_types=[ADAM], **bare
        ),
        "random forest": lambda: mlflow.sklearn.log_model(
            forest, name="m", signature=frame, skops_trusted_types=["sklearn.tree._tree.Tree"], **bare
        ),
        "pyfunc": lambda: mlflow.pyfunc.log_model(name="m", python_model=Called(net), signature=tensor, **bare),
    }
    with contextlib.suppress(ImportError):
        import xgboost

        boosted = xgboost.XGBClassifier(n_estimators=50, max_depth=3, random_state=0).fit(x, y)
        found["XGBoost"] = lambda: mlflow.xgboost.log_model(boosted, name="m", signature=frame, **bare)
    with contextlib.suppress(ImportError):
        import lightgbm

        light = lightgbm.LGBMClassifier(n_estimators=50, random_state=0, verbose=-1).fit(x, y)
        found["LightGBM"] = lambda: mlflow.lightgbm.log_model(light, name="m", signature=frame, **bare)
    return found


def registered(folder: Path, uri: str) -> dict[str, str]:
    """Name of each version by its number; the first is champion."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    x, held_x, y, held_y = train_test_split(x, y, test_size=0.4, random_state=0, stratify=y)
    np.savez(folder / "train.npz", x=x, y=y)
    np.savez(folder / "validation.npz", x=held_x, y=held_y)
    (folder / "net.py").write_text(NET)
    (folder / "flataudit.yaml").write_text(POLICY)
    mlflow.set_tracking_uri(uri)
    client, names = mlflow.MlflowClient(), {}
    mlflow.set_experiment("flavours")
    client.create_registered_model(MODEL)
    for name, log in loggers(x, y).items():
        with mlflow.start_run(run_name=name) as run:
            info: Any = log()
            made = client.create_model_version(
                MODEL, f"models:/{info.model_id}", run_id=run.info.run_id, model_id=info.model_id
            )
        names[str(made.version)] = name
        print(f"logged {name}", file=sys.stderr)
    client.set_registered_model_alias(MODEL, "champion", "1")
    return names


def table(document: dict[str, Any], names: dict[str, str]) -> str:
    """What of each version was measured, and the reasons for what was not."""
    lines: list[str] = []
    for candidate in sorted(document["candidates"], key=lambda c: int(c["version"])):
        version, flavour = candidate["version"], candidate["flavour"]
        found = candidate["measurements"]
        measured = [m for m in found if m["outcome"] == "measured"]
        numbers = ", ".join(f"{m['metric']} {m['estimate']:.4g}" for m in measured if m["metric"] in SHOWN)
        verdict = candidate["verdict"] or "champion"
        lines.append(f"v{version} {names[version]} ({flavour}, {candidate['trust'].replace('_', ' ')}): {verdict}")
        lines.append(f"    {len(measured)} of {len(found)} metrics: {numbers}")
        lines += [f"    + {note}" for note in candidate["notes"]]
        reasons: dict[str, list[str]] = {}
        for m in found:
            if m["outcome"] != "measured":
                reasons.setdefault(f"{m['outcome'].replace('_', ' ')}: {m['reason']}", []).append(m["metric"])
        for reason, metrics in reasons.items():
            more = f" and {len(metrics) - 3} more" if len(metrics) > 3 else ""
            lines.append(f"    - {', '.join(metrics[:3])}{more}: {reason}")
    return "\n".join(lines)


def main() -> None:
    """Log, gate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="Where to work; else a folder that is removed.")
    folder = parser.parse_args().dir
    with contextlib.ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True, parents=True)
        uri = f"sqlite:///{folder.resolve()}/mlflow.db"
        warnings.simplefilter("ignore")
        names = registered(folder, uri)
        command = [
            str(Path(sys.executable).with_name("flataudit")),
            "gate",
            "--dry-run",
            "--json",
            "--tracking-uri",
            uri,
        ]
        gate = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
        document = json.loads(gate.stdout)
        told = f"exit {gate.returncode}, {document['decision']}"
        print(f"flataudit gate --model {MODEL} --dry-run: {told}\n{document['why']}\n")
        print(table(document, names))


if __name__ == "__main__":
    main()
