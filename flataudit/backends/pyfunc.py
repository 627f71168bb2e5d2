"""Any model that MLflow can call: its own code answers, so that only outputs are looked at, and only when trusted."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import mlflow.pyfunc
import numpy as np
import pandas
from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.answers import Answering
from flataudit.backends.class_order import column_of_each_class
from flataudit.backends.feeding import Feed, feed
from flataudit.backends.intervals import as_stated
from flataudit.backends.outputs import settle
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Check, Loaded
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Record
from flataudit.mlmodel import Signature, read_mlmodel
from flataudit.specs import Job

__all__ = ["PyfuncBackend"]

_CALLED = "called through MLflow's python_function"
_ROUNDED = 1e-3
"""How far sums of probabilities are from 1, which code for people may have rounded."""


class PyfuncBackend(Record):
    """Loads the ``python_function`` flavour, models from code among them, through MLflow."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """A model that predicts, checked on the sample.

        Raises:
            UntrustedError: the job does not trust the candidate; its code is what predicts.
            ModelError: it does not load here, or answers wrongly.
        """
        described = read_mlmodel(Path(job.artifact))
        described.flavour("python_function")
        if not job.trust:
            remedy = "log it in a flavour of its library (pytorch, onnx, sklearn …), or pass --trust"
            raise UntrustedError("a format that is data only", got="a python_function, which is code", remedy=remedy)
        with _quiet_mlflow():
            try:
                loaded = mlflow.pyfunc.load_model(job.artifact)
            except Exception as error:
                got = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
                remedy = "install what its requirements.txt names, or log the model again"
                raise ModelError("a python_function that loads here", got=got, remedy=remedy) from error
        fed = feed(sample, described.signature)
        caller = _Caller(loaded, fed, described.signature, job.output, sample)
        model = Answering(
            caller,
            job.task,
            outputs=job.outputs,
            batch_size=job.batch_size,
            example_bytes=64 * int(sample.inputs[:1].nbytes),
            dtype="float64",
        )
        model.no_curvature_because = "a python_function shows nothing but its answers"
        stated = as_stated(model, job.outputs, job.quantiles, sample=sample)
        if stated is not None:
            return Loaded(stated[0], "code_bearing", (_CALLED, *fed.notes, *caller.notes, stated[1]))
        told = settle(model, sample, tolerance=_ROUNDED)
        verify(model, sample)
        notes = (_CALLED, *fed.notes, *caller.notes, *told)
        return Loaded(model, "code_bearing", notes)

    def check(self) -> list[Check]:
        """Version."""
        return [Check(name="backends: python_function", ok=True, found=f"MLflow {mlflow.__version__}; needs --trust")]


class _Callable(Protocol):
    def predict(self, data: object) -> object:
        """Anything from anything."""
        ...


class _Caller:
    """Batches in as the model's signature has them, one array of scores or values out."""

    def __init__(
        self,
        model: _Callable,
        fed: Feed,
        signature: Signature | None,
        output: str | None,
        data: AuditData,
    ) -> None:
        self._model, self._feed, self._output, self._data = model, fed, output, data
        declared = signature.inputs if signature else ()
        self._frame = bool(declared) and all(field.shape is None for field in declared)
        self.notes: tuple[str, ...] = ()

    def __call__(self, inputs: NDArray[generic]) -> NDArray[generic]:
        with _quiet_mlflow():
            found = self._model.predict(self._batch(inputs))
        return self._scores(found)

    def _batch(self, inputs: NDArray[generic]) -> object:
        if self._frame:
            return self._feed.frame(inputs)
        arrays = self._feed.arrays(inputs)
        if self._feed.whole and self._feed.parts[0].name is None:
            return arrays[0]
        return {str(part.name): array for part, array in zip(self._feed.parts, arrays, strict=True)}

    def _scores(self, found: object) -> NDArray[generic]:
        if isinstance(found, dict):
            found = self._named(found, list(found))
        elif isinstance(found, pandas.DataFrame) and self._output is not None:
            found = self._named(found, [str(column) for column in found.columns])
        if isinstance(found, pandas.DataFrame):
            return self._columns(found)
        if isinstance(found, pandas.Series):
            found = found.to_numpy()
        return np.asarray(found)

    def _named(self, found: object, known: Sequence[object]) -> object:
        if self._output is None or self._output not in known:
            got = f"{self._output!r}" if self._output else "no `output`"
            names = ", ".join(str(name) for name in known)
            raise ModelError(f"one of the model's outputs: {names}", got=got, remedy="declare `output:` by its name")
        return found[self._output]  # type: ignore[index]  # a dict or a data frame that has it

    def _columns(self, found: "pandas.DataFrame") -> NDArray[generic]:
        """Columns named by the classes go into the data's order."""
        names = list(found.columns)
        values = found.to_numpy()
        if len(names) > 1 and self._data.class_names and set(map(str, names)) == set(self._data.class_names):
            order = list(column_of_each_class(names, self._data))
            self.notes = ("its columns are named by the classes and were put in the data's order",)
            return np.asarray(values[:, order])
        return np.asarray(values)


@contextlib.contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """MLflow warns of package versions on every load, in the worker where nobody reads it."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
