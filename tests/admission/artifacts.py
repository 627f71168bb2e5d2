"""One small artifact of every kind that people log, written by MLflow where MLflow writes it."""

import json
import pickle
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

BARE: dict[str, Any] = {"pip_requirements": []}
X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
Y = np.arange(60) % 3


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


def pt2(folder: Path) -> None:
    described(folder)
    torch.export.save(torch.export.export(net(), (torch.tensor(X[:2]),)), folder / "data/model.pt2")


def pickled_module(folder: Path) -> None:
    import mlflow

    mlflow.pytorch.save_model(net(), str(folder), serialization_format="pickle", **BARE)


def torchscript(folder: Path) -> None:
    import mlflow

    script = torch.jit.trace(net(), torch.tensor(X[:2]), check_trace=False)
    mlflow.pytorch.save_model(script, str(folder), serialization_format="pickle", **BARE)


def state_dict(folder: Path) -> None:
    from mlflow.models import Model

    from flataudit.backends import weights

    weights.save_model(str(folder), Model(), state_dict=net().state_dict())


def old_state_dict(folder: Path) -> None:
    described(folder, "flavors: {flataudit.state_dict: {model_data: data}}")
    torch.save(net().state_dict(), folder / "data/state.pth", _use_new_zipfile_serialization=False)


def safetensors(folder: Path) -> None:
    from safetensors.torch import save_file

    described(folder, "flavors: {flataudit.state_dict: {model_data: data}}")
    save_file(net().state_dict(), folder / "data/weights.safetensors")


def onnx(folder: Path, **more: object) -> None:
    import mlflow
    from onnx import TensorProto, helper

    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [shape("x", TensorProto.FLOAT, ["n", 3])],
        [shape("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = {"graph_optimization_level": 99}
    mlflow.onnx.save_model(model, str(folder), onnx_session_options=options, **BARE, **more)


def skops(folder: Path) -> None:
    import mlflow
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    types = ["sklearn.tree._tree.Tree"]
    mlflow.sklearn.save_model(forest, str(folder), serialization_format="skops", skops_trusted_types=types, **BARE)


def pickled_sklearn(folder: Path) -> None:
    import mlflow
    from sklearn.linear_model import LogisticRegression

    mlflow.sklearn.save_model(LogisticRegression().fit(X, Y), str(folder), serialization_format="cloudpickle", **BARE)


def xgboost(folder: Path, form: str = "ubj") -> None:
    import mlflow
    import xgboost

    boosted = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(X, Y)
    mlflow.xgboost.save_model(boosted, str(folder), model_format=form, **BARE)


def xgboost_json(folder: Path) -> None:
    xgboost(folder, "json")


def lightgbm(folder: Path) -> None:
    import lightgbm
    import mlflow

    light = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, Y)
    mlflow.lightgbm.save_model(light.booster_, str(folder), **BARE)


def transformers(folder: Path) -> None:
    """As MLflow lays it out; the classes themselves take seconds to import."""
    from safetensors.torch import save_file

    described(folder, "flavors: {transformers: {model_binary: model, source_model_name: org/small}}")
    (folder / "model").mkdir()
    (folder / "components/tokenizer").mkdir(parents=True)
    config = {"architectures": ["BertForSequenceClassification"], "hidden_size": 8}
    (folder / "model/config.json").write_text(json.dumps(config))
    (folder / "components/tokenizer/tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    (folder / "components/tokenizer/vocab.txt").write_text("[PAD]\n[UNK]\nimportant\nconda\npython\n!\n")
    (folder / "model_card.md").write_text("# A card\n\n```python\nimport transformers\n```\n")
    save_file(net().state_dict(), folder / "model/model.safetensors")


class Answers:
    """Stands for a model of MLflow's general kind."""

    def predict(self, context, model_input, params=None):
        return model_input


def pyfunc(folder: Path) -> None:
    import mlflow

    class Called(Answers, mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Pickled by value."""

    mlflow.pyfunc.save_model(str(folder), python_model=Called(), **BARE)


def model_from_code(folder: Path) -> None:
    import mlflow

    source = folder.parent / "written.py"
    source.write_text(
        textwrap.dedent("""
        import mlflow
        class Model(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):
                return model_input
        mlflow.models.set_model(Model())
        """)
    )
    mlflow.pyfunc.save_model(str(folder), python_model=str(source), **BARE)


def code_paths(folder: Path) -> None:
    (folder.parent / "extra").mkdir()
    (folder.parent / "extra/__init__.py").write_text("VALUE = 1\n")
    onnx(folder, code_paths=[str(folder.parent / "extra")])


DATA: tuple[Callable[[Path], None], ...] = (
    *(pt2, state_dict, old_state_dict, safetensors, onnx, skops, xgboost, xgboost_json, lightgbm, transformers),
)
CODE: tuple[tuple[Callable[[Path], None], str], ...] = (
    (pickled_module, "torch.nn.modules.linear.Linear"),
    (torchscript, "a TorchScript program"),
    (pickled_sklearn, "sklearn.linear_model._logistic.LogisticRegression"),
    (pyfunc, "mlflow.pyfunc.model"),
    (model_from_code, "a model from code"),
    (code_paths, "a folder of code"),
)


def described(folder: Path, text: str = "flavors: {pytorch: {model_data: data}}") -> Path:
    """A folder with an MLmodel file and an empty ``data``."""
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text(text)
    return folder


def pickled(value: object, protocol: int = 4) -> bytes:
    return pickle.dumps(value, protocol=protocol)


def written(build: Callable[[Path], None], folder: Path) -> Path:
    """The artifact, without the warnings of who writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build(folder)
    return folder
