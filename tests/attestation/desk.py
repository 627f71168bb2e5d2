"""A registry with a poor champion and a good challenger of twelve parameters, and the command line on it."""

import io
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import nn

from flataudit import cli, cli_attestation
from flataudit.errors import FlatauditError

MLMODEL = "flavors:\n  pytorch: {model_data: data}\n  python_function: {loader_module: mlflow.pytorch}\n"
CENTRES = np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
POLICY = """
model: {model}
challengers: {{newest: 9}}
data: {{validation: {{use: npz, path: v.npz}}}}
probes: [accuracy]
report: {{formats: [json, md, html, junit]}}
attestation: {{expires_days: 30}}
"""


@cache
def program(*, poor: bool = False) -> bytes:
    net = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(CENTRES))
        if poor:
            net.weight[1] = net.weight[0] / 2
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(net.eval(), (torch.zeros(2, 4),), dynamic_shapes=dynamic, strict=False)
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    return buffer.getvalue()


@dataclass
class Desk:
    """`run` is the command line, `attest` the commands on attestations; both give code, output and errors."""

    folder: Path
    trainer: Any
    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch
    model: str = "m"

    def set_up(self) -> None:
        self.patch.chdir(self.folder)
        generator = np.random.default_rng(0)
        y = generator.integers(0, 3, 400)
        x = (CENTRES[y] + generator.standard_normal((400, 4))).astype(np.float32)
        np.savez(self.folder / "v.npz", x=x, y=y)
        (self.folder / "flataudit.yaml").write_text(POLICY.format(model=self.model))
        self.register(program(poor=True), "poor")
        self.trainer.client.set_registered_model_alias(self.model, "champion", "1")
        self.register(program(), "good")

    def register(self, content: bytes, title: str) -> str:
        files = {"MLmodel": MLMODEL, "data/model.pt2": content}
        return str(self.trainer.version(self.folder / title, self.model, title=title, files=files).version)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self.patch.setattr(sys, "argv", ["flataudit", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = self.capture.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    def attest(self, *arguments: str) -> tuple[int, str, str]:
        app = typer.Typer()
        cli_attestation.register(app)
        try:
            code = app(list(arguments), standalone_mode=False) or 0
        except typer.Exit as ended:
            code = ended.exit_code
        except FlatauditError as error:
            code = error.exit_code
            typer.echo(str(error), err=True)
        told = self.capture.readouterr()
        return int(code), told.out, told.err
