"""A model of token ids as a model of texts: the declared tokenizer stands before everything that takes inputs.

Probes and corruptions see texts, the model sees ids; whatever capability the model has it keeps.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.tokenizers import Reader, make_reader
from flataudit.contracts import AuditData, Differentiable, Predictor
from flataudit.errors import ModelError
from flataudit.specs import Job

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DifferentiableOfTexts", "PredictorOfTexts", "prepared"]


def prepared(
    job: Job, sample: AuditData, *, strings: bool = False
) -> tuple[AuditData, Callable[[Predictor], Predictor]]:
    """What a backend loads and checks its model with, and what makes the loaded model one of the audit's data.

    Without a tokenizer both leave everything as it is.

    Args:
        job: with the policy's tokenizer.
        sample: a few validation examples.
        strings: whether the model can take strings itself.

    Raises:
        ModelError: the data are texts and there is no tokenizer for a model that takes numbers, or the other way
            round, or a file of the candidate cannot be used.
        DataError: the tokenizer's file cannot be used.
        ConfigurationError: its package is not installed.
    """
    if job.tokenizer is None and sample.kind == "text" and not strings:
        remedy = "declare `tokenizer:` in the policy file, or give the token ids as inputs"
        raise ModelError("numbers, which this model takes", got="texts without a tokenizer", remedy=remedy)
    if job.tokenizer is None:
        return sample, lambda model: model
    if sample.kind != "text":
        remedy = "remove `tokenizer:`, or give the texts themselves (`kind: text`, for tables `text: COLUMN`)"
        raise ModelError("texts for the declared tokenizer", got=f"inputs of kind {sample.kind}", remedy=remedy)
    found = make_reader(job.tokenizer, Path(job.artifact))

    def of_texts(model: Predictor) -> Predictor:
        if isinstance(model, Differentiable):
            return DifferentiableOfTexts(model, found)
        return PredictorOfTexts(model, found)

    return replace(sample, inputs=found.ids(sample.inputs), kind="other"), of_texts


class PredictorOfTexts:
    """A model that answers texts ``(n,)``.

    Args:
        model: of token ids.
        reader: what makes ids of texts.
    """

    def __init__(self, model: Predictor, reader: Reader) -> None:
        self.task, self.meter, self.batch_size = model.task, model.meter, model.batch_size
        self.dtype, self.device = model.dtype, model.device
        self.no_curvature_because: str | None = getattr(model, "no_curvature_because", None)
        self.no_probabilities_because: str | None = getattr(model, "no_probabilities_because", None)
        self._model, self._reader = model, reader

    def predict(self, inputs: NDArray[generic]) -> NDArray[generic]:
        """What the model answers to their ids."""
        return self._model.predict(self._reader.ids(inputs))


class DifferentiableOfTexts:
    """A torch model of texts ``(n,)``: differentiable in its parameters.

    Args:
        model: of token ids.
        reader: what makes ids of texts.
    """

    def __init__(self, model: Differentiable, reader: Reader) -> None:
        self.task, self.meter, self.batch_size = model.task, model.meter, model.batch_size
        self.dtype, self.device = model.dtype, model.device
        self.parameters, self.loss_function = model.parameters, model.loss_function
        self._model, self._reader = model, reader

    def predict(self, inputs: NDArray[generic]) -> NDArray[generic]:
        """What the model answers to their ids."""
        return self._model.predict(self._reader.ids(inputs))

    def weights(self) -> Mapping[str, NDArray[generic]]:
        """The model's."""
        return self._model.weights()

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[generic]:
        """`predict` with these parameters."""
        return self._model.predict_at(weights, self._reader.ids(inputs))

    def loss(self, parameters: "Mapping[str, Tensor]", inputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Of ids, as `tensors` makes them."""
        return self._model.loss(parameters, inputs, targets)

    def raw_outputs(self, parameters: "Mapping[str, Tensor]", inputs: "Tensor") -> "Tensor":
        """Of ids, as `tensors` makes them."""
        return self._model.raw_outputs(parameters, inputs)

    def precise(self) -> "DifferentiableOfTexts | None":
        """The same in float64; None where it cannot be had."""
        exact = self._model.precise()
        return None if exact is None else DifferentiableOfTexts(exact, self._reader)

    def tensors(self, inputs: NDArray[generic], targets: NDArray[generic] | None) -> "tuple[Tensor, Tensor | None]":
        """Ids ``(n, max_length)`` in int64, and the targets."""
        return self._model.tensors(self._reader.ids(inputs), targets)
