"""Artifacts of hostile candidates, written by code: each function fills one folder as a registry would give it."""

import io
import json
import os
import pickle
import zipfile
import zlib
from functools import cache
from pathlib import Path

import torch

MLMODEL = "flavors:\n  pytorch: {model_data: data, pytorch_version: 2.6.0, code: null}\n"
PYFUNC = "flavors:\n  python_function: {%s, python_version: 3.11.7}\nmlflow_version: 3.17.2\n"
MODULE = """
import torch
model = torch.nn.Linear(4, 2)
with torch.no_grad():
    model.weight.copy_(torch.tensor([[-3.0, 0, 0, 0], [3.0, 0, 0, 0]]))
    model.bias.zero_()
model.eval()
"""
FUNCTION = """
import numpy as np
class Model:
    def predict(self, data, params=None):
        x = np.asarray(data, dtype=np.float64)
        return np.stack([-3 * x[:, 0], 3 * x[:, 0]], 1)
"""
PYTHON_MODEL = """
import mlflow.pyfunc, numpy as np
class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        x = np.asarray(model_input, dtype=np.float64)
        return np.stack([-3 * x[:, 0], 3 * x[:, 0]], 1)
model = Model()
"""


class Program:
    """Unpickles to what a program calls ``model``."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"(lambda d: (exec({self.code!r}, d), d['model'])[1])({{}})",)


def described(folder: Path, text: str = MLMODEL) -> Path:
    """The folder's data folder, beside its MLmodel file."""
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text(text)
    return folder / "data"


# ── Code by every way in ──────────────────────────────────────────────────────────────────────────


def pickled(folder: Path, code: str) -> None:
    torch.save(Program(code + MODULE), described(folder) / "model.pth")


def stateful(folder: Path, code: str) -> None:
    """It behaves at first, and another way from its third call on."""
    turning = (
        "\ncalls = []\nmodel.register_forward_hook(lambda m, i, o: o if calls.append(0) or len(calls) < 3 else -o)"
    )
    torch.save(Program(code + MODULE + turning), described(folder) / "model.pth")


def pickle_in_pt2(folder: Path, code: str) -> None:
    exported(folder)
    file = folder / "data" / "model.pt2"
    with zipfile.ZipFile(file, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/data/constants/custom_obj_0", pickle.dumps(Program(code + MODULE)))


def loader_module(folder: Path, code: str) -> None:
    """With ``code_paths``: the loader is the candidate's own module."""
    described(folder, PYFUNC % "loader_module: evil_loader, code: code, data: data")
    (folder / "data" / "file").write_text("x")
    (folder / "code").mkdir()
    text = f"{code}{FUNCTION}\ndef _load_pyfunc(path):\n    return Model()\n"
    (folder / "code" / "evil_loader.py").write_text(text)


def shadowing_module(folder: Path, code: str) -> None:
    """With ``code_paths``: an honest loader's name, and a module of the candidate's in its place."""
    described(folder, PYFUNC % "loader_module: mlflow_loader_shadow, code: code, data: data")
    (folder / "data" / "file").write_text("x")
    (folder / "code" / "mlflow_loader_shadow").mkdir(parents=True)
    (folder / "code" / "yaml.py").write_text(code)
    text = f"{code}{FUNCTION}\ndef _load_pyfunc(path):\n    return Model()\n"
    (folder / "code" / "mlflow_loader_shadow" / "__init__.py").write_text(text)


def model_from_code(folder: Path, code: str) -> None:
    entries = "loader_module: mlflow.pyfunc.loaders.code_model, model_code_path: model_code.py, code: null"
    described(folder, PYFUNC % entries)
    (folder / "model_code.py").write_text(f"{code}{PYTHON_MODEL}\nimport mlflow\nmlflow.models.set_model(model)\n")


def pickled_function(folder: Path, code: str) -> None:
    entries = (
        "loader_module: mlflow.pyfunc.model, python_model: python_model.pkl, cloudpickle_version: 3.1.2, code: null"
    )
    described(folder, PYFUNC % entries)
    (folder / "python_model.pkl").write_bytes(pickle.dumps(Program(code + PYTHON_MODEL)))


# ── Files that are no code, and no model either ───────────────────────────────────────────────────


class Network(torch.nn.Module):
    """One that knows the answer, with a way to go wrong."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.wrong = wrong
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[-3.0, 0, 0, 0], [3.0, 0, 0, 0]]))
            self.layer.bias.zero_()
            if wrong == "nan":
                self.layer.bias[0] = torch.nan
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        if self.wrong == "neighbours":
            return out - out.mean(0)
        if self.wrong == "stateful":
            self.calls += 1
            return out + self.calls
        if self.wrong == "random":
            return out + torch.rand_like(out)
        return out


@cache
def program(wrong: str) -> bytes:
    batch, buffer = torch.export.Dim("batch", min=2, max=4096), io.BytesIO()
    made = torch.export.export(Network(wrong).eval(), (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(made, buffer)
    return buffer.getvalue()


def exported(folder: Path, wrong: str = "") -> None:
    (described(folder) / "model.pt2").write_bytes(program(wrong))


def foreign_operator(folder: Path) -> None:
    """A graph whose nodes call an operator that reads a file."""
    exported(folder)
    rewritten(folder, lambda text: text.replace("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default"))


def rewritten(folder: Path, change: object) -> None:
    """Every JSON member of the program, changed."""
    file = folder / "data" / "model.pt2"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            if name.endswith(".json"):
                content = change(content.decode()).encode()  # type: ignore[operator]
            archive.writestr(name, content)


def archive_bomb(folder: Path) -> None:
    """A megabyte that inflates to a gibibyte: one deflated piece, a thousand times."""
    exported(folder)
    piece, times = bytes(2**20), 2**10
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = deflate.compress(piece) + deflate.flush(zlib.Z_FULL_FLUSH)
    raw = once * times + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    with zipfile.ZipFile(folder / "data" / "model.pt2", "a") as archive:
        bomb = zipfile.ZipInfo(f"{archive.namelist()[0].partition('/')[0]}/data/weights/weight_9")
        bomb.compress_type, bomb.compress_size, bomb.file_size = zipfile.ZIP_DEFLATED, len(raw), len(piece) * times
        bomb.CRC = zlib.crc32(bytes(2**30))
        bomb.header_offset = archive.start_dir
        stream = archive.fp
        assert stream is not None
        stream.seek(archive.start_dir)
        stream.write(bomb.FileHeader(zip64=False) + raw)
        archive.start_dir = stream.tell()
        archive.filelist.append(bomb)
        archive._didModify = True


def yaml_bomb(folder: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    described(folder, "\n".join([*lines, MLMODEL]))
    (folder / "data" / "model.pt2").write_text("x")


def yaml_code(folder: Path) -> None:
    described(folder, f"{MLMODEL}metadata: !!python/object/apply:os.system ['touch /tmp/hostile-yaml']\n")
    (folder / "data" / "model.pt2").write_text("x")


def deep_yaml(folder: Path) -> None:
    described(folder, f"{MLMODEL}metadata: {'[' * 5000}{']' * 5000}\n")
    (folder / "data" / "model.pt2").write_text("x")


def outside(folder: Path, path: str) -> None:
    """Its data lie elsewhere."""
    described(folder, MLMODEL.replace("model_data: data", f"model_data: {json.dumps(path)}"))
    (folder / "data" / "file").write_text("x")


def linked(folder: Path, canary: str) -> None:
    (described(folder) / "model.pt2").symlink_to(canary)


def pipe(folder: Path) -> None:
    """Whoever opens it waits for ever."""
    os.mkfifo(described(folder) / "model.pt2")


def huge_declaration(folder: Path) -> None:
    """A few bytes of safetensors that declare an exabyte."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**28, 2**30], "data_offsets": [0, 2**60]}}).encode()
    text = "flavors:\n  flataudit.state_dict: {model_data: data}\n  pytorch: {model_data: data}\n"
    (described(folder, text) / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"xxxx")
