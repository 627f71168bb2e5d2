"""Small models and data sets on which a probe is tried: classes, values, odd batches, a single example."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
from numpy import generic
from numpy.typing import NDArray

from flataudit.contracts import AuditData, Differentiable, Meter, Perturbable, Predictor
from flataudit.data.examples import checked
from flataudit.specs import Role, Task

__all__ = ["LinearModel", "Subject", "data_state", "standard_subjects"]

_FEATURES, _CLASSES, _BATCH = 6, 3, 8


_NORMED = 24
"""Examples of the subject whose network has a batch norm."""


@dataclass(frozen=True)
class Subject:
    """A model and the data it is measured on."""

    name: str
    """What is special about it, for messages."""
    model: Predictor
    data: AuditData
    state: Callable[[], bytes]
    """Everything about the model that a probe must leave as it was."""


class LinearModel:
    """Softmax or least-squares regression in NumPy: a `Predictor` and `Perturbable` without torch."""

    dtype, device = "float64", "cpu"

    def __init__(self, task: Task, features: int, *, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        outputs = 1 if task == "regression" else _CLASSES
        self.task, self.meter, self.batch_size = task, Meter(), _BATCH
        self._weights: dict[str, NDArray[generic]] = {
            "weight": generator.standard_normal((features, outputs)),
            "bias": generator.standard_normal(outputs),
        }

    def predict(self, inputs: NDArray[generic]) -> NDArray[np.float64]:
        """Log-probabilities ``(n, classes)`` or values ``(n,)``."""
        return self.predict_at(self._weights, inputs)

    def weights(self) -> dict[str, NDArray[generic]]:
        """Copies of weight and bias."""
        return {name: value.copy() for name, value in self._weights.items()}

    def predict_at(self, weights: Mapping[str, NDArray[generic]], inputs: NDArray[generic]) -> NDArray[np.float64]:
        """`predict` with these weights."""
        self.meter.forward += len(inputs)
        weight, bias = (np.asarray(weights[name], dtype=np.float64) for name in ("weight", "bias"))
        rows = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
        found: NDArray[np.float64] = rows @ weight + bias
        if self.task == "regression":
            return found[:, 0]
        found = found - found.max(axis=1, keepdims=True)
        return cast("NDArray[np.float64]", found - np.log(np.exp(found).sum(axis=1, keepdims=True)))


def standard_subjects(requires: type, role: Role, *, reference: Role | None = None) -> Iterator[Callable[[], Subject]]:
    """Makers of subjects with the capability and role that a probe asks for; each call makes a new one.

    Args:
        requires: the capability.
        role: of the data.
        reference: role of the set that the data are compared with, where the probe asks for one.
    """
    if requires not in (Predictor, Perturbable, Differentiable):
        raise AssertionError(
            f"expected a probe that requires Predictor, Perturbable or Differentiable, got {requires.__name__}; "
            "give subjects of your own: check_probe(probe, subjects=[…])"
        )
    wrap = _torch_subject if requires is Differentiable else _linear_subject

    def data(n: int, *, regression: bool = False, shape: tuple[int, ...] = (_FEATURES,), groups: int = 0) -> AuditData:
        made = _examples(n, role, regression=regression, shape=shape, groups=groups)
        if reference is None:
            return made
        return replace(made, reference=_examples(n + 60, reference, regression=regression, shape=shape, groups=groups))

    yield partial(wrap, "classes, and a short last batch", "multiclass", data(37))
    yield partial(wrap, "values", "regression", data(37, regression=True))
    yield partial(wrap, "images", "multiclass", data(19, shape=(1, 8, 8)))
    yield partial(wrap, "one example", "multiclass", data(1))
    yield partial(wrap, "two groups", "multiclass", data(_NORMED, groups=2))
    if role in ("validation", "shifted"):
        yield partial(wrap, "many groups", "multiclass", data(90, groups=4))


def data_state(data: AuditData) -> bytes:
    """A digest of all bytes of a data set."""
    hasher = hashlib.sha256(repr((data.name, data.role, data.digest)).encode())
    for array in (data.inputs, data.targets, data.groups):
        hasher.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return hasher.digest()


def _examples(
    n: int, role: Role, *, regression: bool = False, shape: tuple[int, ...] = (_FEATURES,), groups: int = 0
) -> AuditData:
    generator = np.random.default_rng(n)
    targets = generator.standard_normal(n) if regression else generator.integers(_CLASSES, size=n)
    return checked(
        "autumn" if role in ("shifted", "unlabelled") else role,
        role,
        generator.standard_normal((n, *shape)),
        targets,
        np.arange(n) % groups if groups else None,
        source="flataudit.testing",
    )


def _linear_subject(name: str, task: Task, data: AuditData) -> Subject:
    model = LinearModel(task, data.inputs[0].size)

    def state() -> bytes:
        return b"".join(value.tobytes() for value in model.weights().values())

    return Subject(name, model, data, state)


def _torch_subject(name: str, task: Task, data: AuditData) -> Subject:
    import torch

    from flataudit.backends.torch_model import TorchModel

    outputs = 1 if task == "regression" else _CLASSES
    linear = partial(torch.nn.utils.skip_init, torch.nn.Linear)
    # Kinked and smooth, with a pair of layers that can be rescaled; on one table with weights before a batch norm.
    norm = (torch.nn.BatchNorm1d(5),) if len(data) == _NORMED else ()
    kinked = (linear(data.inputs[0].size, 5), *norm, torch.nn.ReLU())
    smooth = (linear(5, 4), torch.nn.Tanh(), linear(4, outputs))
    module = torch.nn.Sequential(torch.nn.Flatten(), *kinked, *smooth).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)

    def state() -> bytes:
        found = [tensor.numpy(force=True).tobytes() for tensor in module.state_dict().values()]
        flags = [(p.requires_grad, p.grad is None) for p in module.parameters()]
        return b"".join(found) + repr((flags, [part.training for part in module.modules()])).encode()

    return Subject(name, TorchModel(module, task, batch_size=_BATCH), data, state)
