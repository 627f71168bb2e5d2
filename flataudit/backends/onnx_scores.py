"""Which of an ONNX model's outputs are the scores, and which class each of their columns is.

Networks return one tensor. Classifiers that scikit-learn's converters make return ``(label, probabilities)``, the
probabilities as a tensor or, behind a `ZipMap`, as a list with a mapping from label to probability for each example.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy import generic
from numpy.typing import NDArray

from flataudit.backends.onnx_admission import nodes_of
from flataudit.errors import ModelError

__all__ = ["Scores", "scores_of"]


@dataclass(frozen=True)
class Scores:
    """Where the scores are among the outputs."""

    place: int
    name: str
    labels: tuple[object, ...] = ()
    """The model's own labels of the columns; none: it names none."""
    classifier: bool = False
    """A label stands beside the scores, which are probabilities then."""

    def of(self, outputs: Sequence[object]) -> NDArray[generic]:
        """The scores ``(n, …)`` of a batch.

        Raises:
            ModelError: the output is neither a tensor of numbers nor a mapping for each example.
        """
        found = outputs[self.place]
        if isinstance(found, np.ndarray) and found.dtype.kind in "fiub":
            return found
        if isinstance(found, list) and found and all(isinstance(one, Mapping) for one in found):
            labels = self.labels or tuple(found[0])
            try:
                return np.array([[one[label] for label in labels] for one in found], dtype=np.float64)
            except KeyError as error:
                remedy = "convert the model again with the option zipmap=False"
                raise ModelError(
                    f"a probability for each of {labels}", got=f"none for {error}", remedy=remedy
                ) from None
        got = f"{type(found).__name__} in output {self.name!r}"
        raise ModelError("scores as a tensor of numbers", got=got, remedy="declare `output:`, where the scores are")


def scores_of(model: onnx.ModelProto, outputs: Sequence[str], types: Sequence[str], declared: str | None) -> Scores:
    """The declared output, by its name or its place; else the only one, or a classifier's probabilities.

    Args:
        model: admitted.
        outputs: names in the session's order.
        types: of each, as onnxruntime names them.
        declared: ``output:`` of the job.

    Raises:
        ModelError: no such output, or several and none declared.
    """
    labels = _labels(model)
    beside = [i for i, kind in enumerate(types) if kind in ("tensor(int64)", "tensor(string)")]
    classifier = bool(labels) and bool(beside)
    if declared is not None:
        place = _declared(declared, outputs)
    elif len(outputs) == 1:
        place = 0
    elif classifier and len(outputs) == 2:
        place = 1 - beside[0]
    else:
        got = f"{len(outputs)}: {', '.join(f'{n!r} {k}' for n, k in zip(outputs[:8], types, strict=False))}"
        raise ModelError("one output, or a declared one", got=got, remedy=f"declare `output: {outputs[0]}`, say")
    return Scores(place, outputs[place], labels, classifier and place not in beside)


def _declared(declared: str, outputs: Sequence[str]) -> int:
    if len(outputs) == 1:  # the only one is meant: other candidates return several, and this one's name is its own
        return 0
    if declared in outputs:
        return outputs.index(declared)
    if declared.isdigit() and int(declared) < len(outputs):
        return int(declared)
    got = f"only {', '.join(map(repr, outputs[:8]))}"
    raise ModelError(f"an output {declared!r}", got=got, remedy="correct `output:`")


def _labels(model: onnx.ModelProto) -> tuple[object, ...]:
    """Class labels that an operator of ai.onnx.ml carries; none where two differ."""
    found = {one for node in nodes_of(model) if node.domain == "ai.onnx.ml" for one in _carried(node)}
    return found.pop() if len(found) == 1 else ()


def _carried(node: onnx.NodeProto) -> Iterator[tuple[object, ...]]:
    for attribute in node.attribute:
        if attribute.name in ("classlabels_ints", "classlabels_int64s") and attribute.ints:
            yield tuple(int(label) for label in attribute.ints)
        if (
            attribute.name in ("classlabels_strings", "cats_strings")
            and attribute.strings
            and "Classifier" in (node.op_type)
        ):
            yield tuple(label.decode("utf-8", "replace") for label in attribute.strings)
        if attribute.name == "classlabels_strings" and attribute.strings and node.op_type == "ZipMap":
            yield tuple(label.decode("utf-8", "replace") for label in attribute.strings)
