"""A session's answers as a `Predictor`, and with its weights as inputs as a `Perturbable`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.answers import Answering
from flataudit.backends.class_order import column_of_each_class
from flataudit.contracts import AuditData
from flataudit.specs import OutputKind, Task

if TYPE_CHECKING:
    from flataudit.backends.onnx_scores import Scores
    from flataudit.backends.onnx_session import Door, Session
    from flataudit.backends.onnx_weights import WeightInputs
    from flataudit.curvature.losses import Loss

__all__ = ["OnnxAnswers", "OnnxWeights"]


class OnnxAnswers(Answering):
    """A `Predictor` by a session.

    Args:
        session: of the model.
        entrance: from the audit's array to its inputs.
        scores: which of its outputs count.
        task: what they mean.
        outputs: what they are; None: logits or values.
        batch_size: most examples a call; a fixed batch of the model's comes before.
    """

    no_curvature_because: str | None = None
    """Why it has no parameters to differentiate or move, in a sentence's part."""

    def __init__(
        self,
        session: "Session",
        entrance: "Door",
        scores: "Scores",
        task: Task,
        *,
        outputs: OutputKind | None,
        batch_size: int,
    ) -> None:
        super().__init__(self.answer, task, outputs=outputs, batch_size=batch_size, device=session.device)
        self.session, self.entrance, self.scores = session, entrance, scores
        self.columns: tuple[int, ...] | None = None
        self.dtype = next((f.dtype for f in session.inputs if f.dtype in ("float64", "float16")), "float32")

    def settle(self, sample: AuditData) -> list[str]:
        """Read a classifier's labels: the order of its columns, and that they are probabilities; tells what it did.

        Raises:
            ModelError: its classes are not the data's.
        """
        notes = []
        if self.scores.classifier and self.declared is None and self.task in ("multiclass", "binary"):
            rows = self.raw(sample.inputs)
            if rows.ndim == 2 and rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
                self.declared = self.outputs = "probabilities"
                notes.append(f"a label stands beside {self.scores.name!r}: its rows are taken as probabilities")
        if self.scores.labels and self.task in ("multiclass", "binary") and sample.targets is not None:
            columns = column_of_each_class(self.scores.labels, sample)
            if columns != tuple(range(len(columns))):
                self.columns = columns
                notes.append(f"columns are put in the order of the data's classes: {', '.join(map(str, columns[:16]))}")
        return notes

    def shaped(self, outputs: Sequence[object]) -> NDArray[generic]:
        """The scores of a batch, columns in the order of the data's classes."""
        found = self.scores.of(outputs)
        return found if self.columns is None else found[:, list(self.columns)]

    def filled(self, inputs: NDArray[generic]) -> NDArray[generic]:
        """A batch of the model's fixed size: filled up with copies of its first example."""
        missing = (self.session.fixed_batch or len(inputs)) - len(inputs)
        return np.concatenate([inputs, np.repeat(inputs[:1], missing, axis=0)]) if missing > 0 else inputs

    def answer(self, inputs: NDArray[generic]) -> NDArray[generic]:
        """The scores of one batch."""
        arrays = self.entrance.arrays(self.filled(inputs))
        return self.shaped(self.session.run(arrays))[: len(inputs)]


class OnnxWeights(Answering):
    """A `Perturbable` by two sessions: the model as it is served, and the same graph with its weights as inputs."""

    def __init__(
        self, served: OnnxAnswers, movable: "WeightInputs", loss_function: "Loss", no_curvature_because: str
    ) -> None:
        super().__init__(
            served.answer,
            served.task,
            outputs=served.declared,
            batch_size=served.batch_size,
            dtype=served.dtype,
            device=served.device,
        )
        self.loss_function = loss_function
        """What the model was trained with, for estimates from its answers."""
        self.no_curvature_because = no_curvature_because
        """Why it is not differentiable, in a sentence's part."""
        self._served, self._movable = served, movable

    def weights(self) -> dict[str, NDArray[generic]]:
        """Copies of the float initialisers that take part as weights, by name."""
        return {name: value.copy() for name, value in self._movable.own.items()}

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[np.float64]:
        """`predict` with these weights; those that are not named stay."""

        def answer(part: NDArray[generic]) -> NDArray[generic]:
            arrays = self._served.entrance.arrays(self._served.filled(part))
            return self._served.shaped(self._movable.run(arrays, weights))[: len(part)]

        moved = Answering(answer, self.task, outputs=self.declared, batch_size=self.batch_size)
        moved.meter = self.meter
        return moved.predict(inputs)
