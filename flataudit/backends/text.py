"""A model of token ids as a model of texts: the declared tokenizer stands before everything that takes inputs.

Probes and corruptions see texts, the model sees ids; whatever capability the model has it keeps.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from numpy import generic, int64
from numpy.typing import NDArray

from flataudit.backends.tokenizers import Reader, make_reader
from flataudit.contracts import AuditData, Differentiable, Distribution, Perturbable, Predictor
from flataudit.errors import ModelError
from flataudit.specs import Job, TokenizerSpec

if TYPE_CHECKING:
    from torch import Tensor

    from flataudit.curvature.losses import Loss

__all__ = ["DifferentiableOfTexts", "PerturbableOfTexts", "PredictorOfTexts", "prepared", "through"]


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
    return through(job.tokenizer, Path(job.artifact), sample, strings=strings)


def through(
    tokenizer: TokenizerSpec | None, artifact: Path, sample: AuditData, *, strings: bool = False
) -> tuple[AuditData, Callable[[Predictor], Predictor]]:
    """`prepared` of a tokenizer and the candidate's folder, which need no job; raises the same.

    Args:
        tokenizer: what makes ids of texts.
        artifact: for a file of the candidate's own.
        sample: a few validation examples.
        strings: whether the model can take strings itself.
    """
    if tokenizer is None and sample.kind == "text" and not strings:
        remedy = "declare `tokenizer:` (in the policy file, or as an argument), or give the token ids as inputs"
        raise ModelError("numbers, which this model takes", got="texts without a tokenizer", remedy=remedy)
    if tokenizer is None:
        return sample, lambda model: model
    if sample.kind != "text":
        remedy = "remove `tokenizer:`, or give the texts themselves (`kind: text`, for tables `text: COLUMN`)"
        raise ModelError("texts for the declared tokenizer", got=f"inputs of kind {sample.kind}", remedy=remedy)
    found = make_reader(tokenizer, artifact)
    ids = found.ids(sample.inputs)
    _refuse_blind(ids, sample)

    def of_texts(model: Predictor) -> Predictor:
        if isinstance(model, Differentiable):
            return DifferentiableOfTexts(model, found)
        return PerturbableOfTexts(model, found) if isinstance(model, Perturbable) else PredictorOfTexts(model, found)

    return replace(sample, inputs=ids, kind="other"), of_texts


def _refuse_blind(ids: NDArray[int64], sample: AuditData) -> None:
    """Different texts that all become the same ids were read with a vocabulary of something else."""
    if len(set(sample.inputs.tolist())) > 1 and (ids == ids[:1]).all():
        got = f"the same ids for all {len(ids)} of them, which differ"
        remedy = "check the vocabulary, `lowercase` and `split` of `tokenizer:` against how the model was trained"
        raise ModelError("texts that the tokenizer tells apart", got=got, remedy=remedy)


class _StatedOfTexts:
    """The `Distribution` of a model of token ids, of texts."""

    def __init__(self, stated: Distribution, reader: Reader) -> None:
        self.levels, self.origin = stated.levels, stated.origin
        self._stated, self._reader = stated, reader

    def __call__(self, inputs: NDArray[generic]) -> NDArray[generic]:
        return self._stated(self._reader.ids(inputs))


def _stated(model: Predictor, reader: Reader) -> _StatedOfTexts | None:
    found: object = getattr(model, "distribution", None)
    return _StatedOfTexts(found, reader) if isinstance(found, Distribution) else None


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
        self.no_distribution_because: str | None = getattr(model, "no_distribution_because", None)
        self.distribution = _stated(model, reader)
        self._model, self._reader = model, reader

    def predict(self, inputs: NDArray[generic]) -> NDArray[generic]:
        """What the model answers to their ids."""
        return self._model.predict(self._reader.ids(inputs))


class PerturbableOfTexts(PredictorOfTexts):
    """A model of texts ``(n,)`` whose parameters can be others.

    Args:
        model: of token ids.
        reader: what makes ids of texts.
    """

    def __init__(self, model: Perturbable, reader: Reader) -> None:
        super().__init__(model, reader)
        self.loss_function: Loss | None = getattr(model, "loss_function", None)
        """What it was trained with, where it says so, for estimates from its answers."""
        self._movable = model

    def weights(self) -> Mapping[str, NDArray[generic]]:
        """The model's."""
        return self._movable.weights()

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[generic]:
        """`predict` with these parameters."""
        return self._movable.predict_at(weights, self._reader.ids(inputs))


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
        self.distribution = _stated(model, reader)
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
