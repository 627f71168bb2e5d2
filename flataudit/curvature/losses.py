"""The losses that models are trained with, as functions of a model's outputs: value, weights, and curvature factors.

Curvature in the parameters splits at the outputs f (Schraudolph 2002): H = Jᵀ (∂²ℓ/∂f²) J + Σ_c ∂ℓ/∂f_c ∇²f_c, where
the first part is the generalised Gauss–Newton matrix. A loss therefore gives, besides its value, a factor S of its
own Hessian, ∂²ℓ/∂f² = S Sᵀ, so that Tr(GGN) is a sum of squared norms ‖Jᵀ s_c‖².

Every loss here is a weighted mean, Σ w ℓ / Σ w over *all* examples of a data set: a batch's share is its Σ w, which
makes the short last batch, label weights and ignored tokens come out right.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flataudit.errors import ConfigurationError, ModelError
from flataudit.specs import LossSpec, Task

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Elementwise",
    "Huber",
    "Loss",
    "SquaredError",
    "default_loss",
    "make_loss",
]


_TINY = 1e-300


class Loss(ABC):
    """A loss of outputs ``(n, …)`` and targets; every method is differentiable in the outputs unless it says not."""

    @abstractmethod
    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """W ℓ of each term: ``(n,)``, or ``(n, tokens)`` for sequences."""

    @abstractmethod
    def weights(self, targets: Tensor) -> Tensor:
        """W of each term, in float64; 0 for an ignored one. Not differentiable."""

    @abstractmethod
    def columns(self, outputs: Tensor) -> int:
        """Number of columns of S: backward passes that the exact trace of the Gauss–Newton matrix takes."""

    @abstractmethod
    def factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """S, ``(columns, *outputs.shape)`` with Σ_c s_c s_cᵀ = ∂²(w ℓ)/∂f² for each example. Not differentiable."""

    @abstractmethod
    def mixed(self, outputs: Tensor, targets: Tensor, signs: Tensor) -> Tensor:
        """S ε of a square S with S Sᵀ as in `factors`, linear in ε ``(…, *outputs.shape)``. Not differentiable.

        For random signs ε, E‖Jᵀ S ε‖² = Tr(GGN).
        """

    @abstractmethod
    def sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared lengths of the columns of the S of `mixed`, in the shape of the outputs. Not differentiable."""

    @abstractmethod
    def traces(self, outputs: Tensor, targets: Tensor, gram: Tensor) -> Tensor:
        """Tr(Sᵀ Γ S) of each example, ``(n,)``, for outputs ``(n, k)`` and a symmetric Γ ``(k, k)`` of their dtype."""

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Σ w ℓ / Σ w over these examples, a scalar."""
        return self.terms(outputs, targets).sum() / self.total(targets)

    def total(self, targets: Tensor) -> float:
        """Σ w over these examples, at least the smallest positive number."""
        return max(float(self.weights(targets).sum()), math.ulp(0.0))

    def slope(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """∂(Σ w ℓ)/∂f in the shape of the outputs. Not differentiable."""
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            return torch.autograd.grad(self.terms(leaf, targets).sum(), leaf)[0]


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """−Σ_c q_c log softmax(f)_c for logits ``(n, classes)`` or ``(n, tokens, classes)``.

    >>> outputs, targets = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), torch.tensor([0, 1])
    >>> loss = CrossEntropy(label_weights=(1.0, 2.0, 0.5), label_smoothing=0.1)
    >>> theirs = functional.cross_entropy(outputs, targets, torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    >>> bool(torch.isclose(loss.mean(outputs, targets), theirs))
    True
    """

    label_weights: tuple[float, ...] | None = None
    """One a class; None: all 1."""
    ignore_index: int = -100
    """Targets of this number weigh nothing."""
    label_smoothing: float = 0.0

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """W ℓ, ``(n,)`` or ``(n, tokens)``."""
        found = functional.cross_entropy(
            outputs.movedim(-1, 1),
            self._labels(outputs, targets),
            self._of_classes(outputs),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return found

    def weights(self, targets: Tensor) -> Tensor:
        """Weight of the target's class, 0 where it is ignored."""
        kept = targets != self.ignore_index
        if self.label_weights is None:
            return kept.double()
        table = torch.tensor(self.label_weights, dtype=torch.float64, device=targets.device)
        return torch.where(kept, table[targets.long().clamp(0, len(table) - 1)], 0.0)

    def columns(self, outputs: Tensor) -> int:
        """A class each but the last, whose Cholesky column is zero; as many for every token."""
        return (outputs.shape[-1] - 1) * math.prod(outputs.shape[1:-1])

    def factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The Cholesky factor of diag(p) − ppᵀ in closed form (Tanabe & Sagae 1992), one column less than classes."""
        if outputs.dim() != 2:
            raise ConfigurationError("outputs (n, classes)", got=f"{tuple(outputs.shape)}", remedy="use `mixed`")
        p = outputs.detach().double().softmax(dim=1)
        # What is left of the probability after classes 0 … j, added up from the far end: no cancellation.
        left = p.flip(1).cumsum(1).flip(1)
        before, after = left[:, :-1].clamp_min(_TINY), left[:, 1:].clamp_min(_TINY)
        # As products of ratios of at most 1: saturated probabilities underflow to 0 and never to 0/0.
        below = -(p.sqrt()[:, :, None] * (p[:, :, None] / after[:, None, :]).clamp_max(1).sqrt())
        factor = torch.tril(below * (p[:, :-1] / before).sqrt()[:, None, :], diagonal=-1)
        factor.diagonal(dim1=1, dim2=2).copy_((p[:, :-1] * (after / before).clamp_max(1)).sqrt())
        scale = self._mass(targets, p.shape[1]).sqrt()
        return (factor * scale[:, None, None]).permute(2, 0, 1).to(outputs.dtype)

    def mixed(self, outputs: Tensor, targets: Tensor, signs: Tensor) -> Tensor:
        """√p∘ε − p (√p·ε), times the square root of the term's mass."""
        p = outputs.detach().softmax(dim=-1)
        root = p.sqrt() * signs
        found = root - p * root.sum(dim=-1, keepdim=True)
        return found * self._mass(targets, p.shape[-1]).sqrt().to(p.dtype)[..., None]

    def sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """P (1 − 2p + ‖p‖²) times the term's mass."""
        p = outputs.detach().softmax(dim=-1)
        squares = p.square().sum(dim=-1, keepdim=True)
        return p * (1 - 2 * p + squares) * self._mass(targets, p.shape[-1]).to(p.dtype)[..., None]

    def traces(self, outputs: Tensor, targets: Tensor, gram: Tensor) -> Tensor:
        """Σ_c p_c Γ_cc − pᵀΓp, times the term's mass."""
        p = outputs.detach().softmax(dim=-1)
        found = p @ gram.diagonal() - ((p @ gram) * p).sum(dim=1)
        return found * self._mass(targets, p.shape[-1]).to(p.dtype)

    def _mass(self, targets: Tensor, classes: int) -> Tensor:
        """Σ_c q_c of a term, which multiplies diag(p) − ppᵀ; in float64."""
        spread = classes if self.label_weights is None else sum(self.label_weights)
        kept = (targets != self.ignore_index).double()
        share = self.label_smoothing
        return (1 - share) * self.weights(targets) + kept * (share / classes * spread)

    def _labels(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.shape != outputs.shape[:-1]:
            got = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
            raise ModelError("outputs (n, classes) or (n, tokens, classes)", got=got, remedy="check `task`")
        return targets.long()

    def _of_classes(self, outputs: Tensor) -> Tensor | None:
        if self.label_weights is None:
            return None
        if len(self.label_weights) != outputs.shape[-1]:
            raise ConfigurationError(
                f"{outputs.shape[-1]} label weights, one a class",
                got=f"{len(self.label_weights)}",
                remedy="correct loss.label_weights",
            )
        return torch.tensor(self.label_weights, dtype=outputs.dtype, device=outputs.device)


class Elementwise(Loss):
    """A loss that is a mean over an example's values, each with its own target: outputs ``(n,)`` or ``(n, values)``."""

    @abstractmethod
    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each value, in the shape of the outputs."""

    @abstractmethod
    def root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Square root of its second derivative, in the shape of the outputs."""

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over values, ``(n,)``."""
        _same_shape(outputs, targets)
        return self.values(outputs, targets.to(outputs.dtype)).reshape(len(outputs), -1).mean(dim=1)

    def weights(self, targets: Tensor) -> Tensor:
        """All 1."""
        return torch.ones(len(targets), dtype=torch.float64, device=targets.device)

    def columns(self, outputs: Tensor) -> int:
        """One a value."""
        return outputs[0].numel()

    def factors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Diagonal: the value of one output in each column."""
        flat = self._scaled_root(outputs, targets).reshape(len(outputs), -1)
        return torch.diag_embed(flat).transpose(0, 1).reshape(flat.shape[1], *outputs.shape)

    def mixed(self, outputs: Tensor, targets: Tensor, signs: Tensor) -> Tensor:
        """The diagonal times ε."""
        return self._scaled_root(outputs, targets) * signs

    def sizes(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The diagonal's squares."""
        return self._scaled_root(outputs, targets).square()

    def traces(self, outputs: Tensor, targets: Tensor, gram: Tensor) -> Tensor:
        """The same, by the diagonal of Γ."""
        return self.sizes(outputs, targets) @ gram.diagonal()

    def _scaled_root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        found = outputs.detach()
        return self.root(found, targets.to(found.dtype)) / math.sqrt(found[0].numel())


@dataclass(frozen=True)
class BinaryCrossEntropy(Elementwise):
    """−w⁺ y log σ(f) − (1 − y) log σ(−f) of log-odds f, a label each."""

    label_weights: tuple[float, ...] | None = None
    """w⁺ of each label, PyTorch's ``pos_weight``."""
    label_smoothing: float = 0.0
    """A target y becomes y (1 − s) + s / 2."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of each label."""
        return functional.binary_cross_entropy_with_logits(
            outputs, self._smooth(targets), pos_weight=self._positive(outputs), reduction="none"
        )

    def root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """√(m p (1 − p)) with m = w⁺ y + 1 − y."""
        p, y = outputs.sigmoid(), self._smooth(targets)
        return ((y * self._positive(outputs) + 1 - y) * p * (1 - p)).sqrt()

    def _smooth(self, targets: Tensor) -> Tensor:
        return targets * (1 - self.label_smoothing) + self.label_smoothing / 2

    def _positive(self, outputs: Tensor) -> Tensor:
        return torch.tensor(self.label_weights or (1.0,), dtype=outputs.dtype, device=outputs.device)


@dataclass(frozen=True)
class SquaredError(Elementwise):
    """(f − y)²."""

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of each value."""
        return (outputs - targets).square()

    def root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """√2."""
        return torch.full_like(outputs, math.sqrt(2.0))


@dataclass(frozen=True)
class Huber(Elementwise):
    """r²/2 where |r| ≤ δ, δ (|r| − δ/2) elsewhere, with r = f − y."""

    delta: float = 1.0

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of each value."""
        return functional.huber_loss(outputs, targets, delta=self.delta, reduction="none")

    def root(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 within δ, 0 beyond."""
        return ((outputs - targets).abs() <= self.delta).to(outputs.dtype)


_KINDS: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy,
    "binary_cross_entropy": BinaryCrossEntropy,
    "mse": SquaredError,
    "huber": Huber,
}


def default_loss(task: Task) -> Loss:
    """What models of a task are trained with unless something else is declared."""
    if task == "regression":
        return SquaredError()
    return BinaryCrossEntropy() if task == "multilabel" else CrossEntropy()


def make_loss(spec: LossSpec | None, task: Task) -> Loss:
    """The declared loss, or the task's own.

    Raises:
        ConfigurationError: a loss that does not fit the task.

    >>> make_loss(LossSpec(use="huber", delta=2.0), "regression")
    Huber(delta=2.0)
    """
    if spec is None:
        return default_loss(task)
    if not spec.fits(task):
        raise ConfigurationError(f"a loss of a {task} model", got=spec.use, remedy="correct loss.use or task")
    return _KINDS[spec.use](**spec.model_dump(exclude={"use"}, exclude_unset=True))


def _same_shape(outputs: Tensor, targets: Tensor) -> None:
    if outputs.shape != targets.shape:
        got = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        raise ModelError("targets in the shape of the outputs", got=got, remedy="check `task`")
