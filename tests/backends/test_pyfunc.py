"""Models that MLflow calls: code, and so only when trusted; their outputs and nothing else."""

import textwrap
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from flataudit.backends.pyfunc import PyfuncBackend
from flataudit.contracts import AuditData, Differentiable, Distribution, Perturbable
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Candidate
from flataudit.probes.accuracy import Accuracy
from flataudit.specs import InputField, Job

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own code warns, of type hints and of requirements

WEIGHTS = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
INPUTS = np.random.default_rng(0).normal(size=(64, 2))
TARGETS = (INPUTS @ WEIGHTS).argmax(axis=1)
PROBABILITIES = np.exp(INPUTS @ WEIGHTS) / np.exp(INPUTS @ WEIGHTS).sum(axis=1, keepdims=True)
FIELDS = (InputField(name="b"), InputField(name="a"))
COLUMNS = Schema([ColSpec("double", "a"), ColSpec("double", "b")])


class Softmax(mlflow.pyfunc.PythonModel):
    """Two columns or features in, three probabilities out; as what, is asked."""

    def __init__(self, returns: str = "array") -> None:
        self.returns = returns

    def predict(self, context, model_input, params=None):  # MLflow reads hints as a schema
        x = model_input[["a", "b"]].to_numpy() if isinstance(model_input, pandas.DataFrame) else model_input
        e = np.exp(x @ WEIGHTS)
        p = e / e.sum(axis=1, keepdims=True)
        if self.returns == "frame":
            return pandas.DataFrame(p[:, ::-1], columns=["cat", "bee", "ant"])
        return {"scores": p, "label": p.argmax(axis=1)} if self.returns == "dict" else p


class Quantiles(mlflow.pyfunc.PythonModel):
    """Two features in, three quantiles out."""

    def predict(self, context, model_input, params=None):  # MLflow reads hints as a schema
        return np.asarray(model_input).sum(axis=1, keepdims=True) + np.array([-1.0, 0.0, 1.0])


def saved(folder: Path, model: object, inputs: Schema | None) -> Path:
    signature = ModelSignature(inputs=inputs) if inputs else None
    mlflow.pyfunc.save_model(folder, python_model=model, signature=signature, pip_requirements=[])
    return folder


def job(folder: Path, **fields: object) -> Job:
    candidate = Candidate(name="m", version="1", flavour="python_function", uri="models:/m/1")
    return Job.model_validate(
        {"candidate": candidate, "artifact": str(folder), "probes": (), "data": (), "trust": True}
        | {"outputs": "probabilities"}
        | fields
    )


def data(**fields: object) -> AuditData:
    names = fields.pop("names", False)
    inputs = INPUTS[:, ::-1].copy() if names else INPUTS
    return AuditData("v", "validation", inputs, TARGETS, None, "sha256:d", fields=FIELDS if names else (), **fields)


def test_an_array_model_answers_and_has_nothing_but_answers(tmp_path: Path) -> None:
    loaded = PyfuncBackend().load(
        job(saved(tmp_path / "m", Softmax(), Schema([TensorSpec(np.dtype(float), (-1, 2))]))), data()
    )
    np.testing.assert_allclose(np.exp(loaded.model.predict(INPUTS)), PROBABILITIES, atol=1e-12)
    assert loaded.trust == "code_bearing" and "python_function" in loaded.notes[0]
    assert not isinstance(loaded.model, Perturbable | Differentiable)
    (accuracy, *_) = Accuracy().measure(loaded.model, data(), 0, None)
    assert accuracy.measurement.estimate == 1.0


def test_rows_that_add_up_to_one_are_probabilities_and_that_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Softmax(), COLUMNS)
    loaded = PyfuncBackend().load(job(folder, outputs=None), data(names=True))
    np.testing.assert_allclose(np.exp(loaded.model.predict(INPUTS[:, ::-1])), PROBABILITIES, atol=1e-12)
    assert loaded.notes[-1].startswith("its outputs are taken for probabilities, since nothing is declared")


def test_columns_go_in_by_name(tmp_path: Path) -> None:
    loaded = PyfuncBackend().load(job(saved(tmp_path / "m", Softmax(), COLUMNS)), data(names=True))
    np.testing.assert_allclose(np.exp(loaded.model.predict(INPUTS[:, ::-1])), PROBABILITIES, atol=1e-12)


def test_columns_named_by_classes_come_out_in_the_datas_order(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Softmax("frame"), COLUMNS)
    loaded = PyfuncBackend().load(job(folder), data(class_names=("ant", "bee", "cat"), names=True))
    np.testing.assert_allclose(np.exp(loaded.model.predict(INPUTS[:, ::-1])), PROBABILITIES, atol=1e-12)
    assert "named by the classes" in loaded.notes[-1]
    with pytest.raises(ModelError, match="columns in the order of the data's classes"):
        PyfuncBackend().load(job(folder), data(names=True))  # without names the exchange shows in the answers


def test_one_of_several_outputs_is_declared(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Softmax("dict"), COLUMNS)
    loaded = PyfuncBackend().load(job(folder, output="scores"), data(names=True))
    np.testing.assert_allclose(np.exp(loaded.model.predict(INPUTS[:, ::-1])), PROBABILITIES, atol=1e-12)
    for output in (None, "probabilities"):
        with pytest.raises(ModelError, match="one of the model's outputs: scores, label"):
            PyfuncBackend().load(job(folder, output=output), data(names=True))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Softmax(), Schema([ColSpec("double", "a"), ColSpec("double", "bb")]))
    with pytest.raises(ModelError, match=r"the columns 'bb', which the model takes.* did you mean 'b'\?"):
        PyfuncBackend().load(job(folder), data(names=True))


def test_nothing_of_an_untrusted_model_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"""
        from pathlib import Path
        import mlflow
        Path({str(marker)!r}).touch()
        class Model(mlflow.pyfunc.PythonModel):
            def predict(self, context, model_input):
                return model_input
        mlflow.models.set_model(Model())
    """
    (tmp_path / "code.py").write_text(textwrap.dedent(code))
    folder = saved(tmp_path / "m", str(tmp_path / "code.py"), None)
    marker.unlink(missing_ok=True)  # MLflow itself ran it to save it
    with pytest.raises(UntrustedError, match="a python_function, which is code"):
        PyfuncBackend().load(job(folder, trust=False), data())
    assert not marker.exists()


def test_a_model_that_does_not_load_says_why(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Softmax(), None)
    (folder / "python_model.pkl").write_bytes(b"no pickle")
    with pytest.raises(ModelError, match="a python_function that loads here"):
        PyfuncBackend().load(job(folder), data())


def test_columns_are_taken_for_the_declared_quantiles(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Quantiles(), Schema([TensorSpec(np.dtype(float), (-1, 2))]))
    values = AuditData("v", "validation", INPUTS, INPUTS.sum(axis=1), None, "sha256:d")
    asked = {"task": "regression", "outputs": "quantiles"}
    loaded = PyfuncBackend().load(job(folder, **asked, quantiles=(0.05, 0.5, 0.95)), values)
    np.testing.assert_allclose(loaded.model.predict(INPUTS), INPUTS.sum(axis=1))
    assert isinstance(loaded.model.distribution, Distribution)
    assert loaded.notes[-1] == "it states a distribution: output columns of the quantiles 0.05, 0.5, 0.95"
    with pytest.raises(ModelError, match="declare each"):
        PyfuncBackend().load(job(folder, **asked, quantiles=(0.1, 0.5)), values)
