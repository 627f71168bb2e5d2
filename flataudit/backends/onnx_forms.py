"""What an ONNX model can become beyond its answers: differentiable by a twin, or perturbable; tried, and told."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import onnx

from flataudit.backends.onnx_answers import OnnxAnswers, OnnxWeights
from flataudit.backends.onnx_weights import WeightInputs, plain_form, quantised, weight_names
from flataudit.contracts import AuditData, Predictor
from flataudit.specs import LossSpec

if TYPE_CHECKING:
    from torch import nn

    from flataudit.backends.onnx_twin import OnnxTwin

__all__ = ["Whole"]


class Whole:
    """What an answering model can become beyond its answers."""

    def __init__(
        self, model: onnx.ModelProto, answers: OnnxAnswers, sample: AuditData, loss: LossSpec | None, dtype: str | None
    ) -> None:
        self._model, self._answers, self._sample = model, answers, sample
        self._loss, self._dtype = loss, dtype

    def best(self, *, twin: bool) -> tuple[Predictor, list[str]]:
        """The most capable form that holds, and what was found on the way."""
        whole_numbers = quantised(self._model)
        if whole_numbers is not None:
            return self._alone(f"it is quantised ({whole_numbers}): its parameters are not real numbers")
        plain = plain_form(self._model)
        names = weight_names(plain)
        if not names:
            return self._alone("its graph has no floating-point initialisers that are weights")
        if not twin:
            return self._perturbable(plain, names, "a differentiable twin was not asked for")
        if find_spec("torch") is None:
            return self._perturbable(plain, names, "torch is not installed (pip install 'flataudit[torch,onnx]')")
        return self._twin(plain, names)

    def _alone(self, why: str) -> tuple[Predictor, list[str]]:
        self._answers.no_curvature_because = why
        return self._answers, [f"no parameters to measure: {why}"]

    def _perturbable(self, plain: onnx.ModelProto, names: Sequence[str], why: str) -> tuple[Predictor, list[str]]:
        from flataudit.curvature.losses import make_loss

        movable = WeightInputs(plain, names, device=self._answers.device)
        found = OnnxWeights(self._answers, movable, make_loss(self._loss, self._answers.task), why)
        few = self._sample.inputs[:2]
        apart = float(np.abs(found.predict_at({}, few) - found.predict(few)).max())
        if not apart <= 1e-3:
            return self._alone(f"its graph with weights as inputs answers otherwise (by {apart:.1e})")
        count = sum(value.size for value in movable.own.values())
        return found, [
            f"no differentiable twin: {why}",
            f"parameters are moved by onnxruntime itself: {count:,} weights in {len(names)} initialisers are inputs",
        ]

    def _twin(self, plain: onnx.ModelProto, names: Sequence[str]) -> tuple[Predictor, list[str]]:
        import torch

        from flataudit.backends.onnx_twin import (
            OnnxTwin,
            TwinError,
            make_twin,
            refuse_undifferentiable,
        )

        answers, sample = self._answers, self._sample
        place, wanted = answers.scores.place, set(names)
        weights = sum(int(np.prod(t.dims)) for t in plain.graph.initializer if t.name in wanted)
        try:
            module = make_twin(plain, names, answers.entrance, output=place, columns=answers.columns)
            module = module.to(answers.device)
            fixed, apart, model = self._agreeing(module)
            if self._dtype is not None:
                module = module.to(getattr(torch, self._dtype))
                model = OnnxTwin(answers, module, loss=self._loss, fixed_batch=fixed)
            refuse_undifferentiable(model, sample, weights)
        except TwinError as error:
            return self._perturbable(plain, names, str(error))
        note = (
            f"predictions are onnxruntime's; gradients and curvature are of a differentiable twin by onnx2pytorch "
            f"({weights:,} parameters), which agrees with onnxruntime to {apart:.0e} on {len(sample)} examples"
        )
        return model, [note]

    def _agreeing(self, module: "nn.Module") -> "tuple[int | None, float, OnnxTwin]":
        """The twin with any batch size, where it holds although the graph declares one; else with the graph's."""
        from flataudit.backends.onnx_twin import OnnxTwin, TwinError, agreement

        for fixed in dict.fromkeys((None, self._answers.session.fixed_batch)):
            model = OnnxTwin(self._answers, module, loss=self._loss, fixed_batch=fixed)
            try:
                return fixed, agreement(model, self._sample), model
            except TwinError as error:
                found = error
        raise found
