"""The T of a ball ‖T⁻¹d‖₂ ≤ ρ and of a noise Tε: how far each parameter has to move to have moved by one.

What a measure of flatness is invariant to is decided here. *Yes* means that ball and noise move along with a change of
the parameters that leaves the function as it is, so that no number changes; the tests check each entry.

| change of the parameters                                        | unit | element | filter                    |
| ---------------------------------------------------------------- | ---- | ------- | ------------------------- |
| order of the units of a layer                                    | yes  | yes     | yes                       |
| ReLU layers (αW₁, αb₁, W₂/α), one α for the layer                | no   | yes     | yes                       |
| ReLU units, a row of W₁ and b₁ by αⱼ, a column of W₂ by 1/αⱼ     | no   | yes     | no (a filter of W₂ bends) |
| filters in front of a normalisation, each by its own α           | no   | yes     | yes                       |
| a rotation of a layer's inputs (W Q and Qᵀx)                     | yes  | no      | yes                       |
| the scale of the logits                                          | no   | no      | no: another loss          |
"""

from typing import Literal

import torch
from torch import Tensor

from flataudit.curvature.objective import Objective

__all__ = ["Scale", "scale_of"]

Scale = Literal["unit", "element", "filter"]


def scale_of(objective: Objective, kind: Scale) -> Tensor:
    """T at the objective's own parameters, ``(parameters,)``, not negative; parameters of scale 0 stay where they are.

    Args:
        objective: whose parameters count.
        kind: ``unit``: T = 1 (Foret et al. 2021). ``element``: T = |θ| (Kwon et al. 2021). ``filter``: T is the norm
            of the filter that a weight belongs to, a filter being a slice along the first dimension; parameters of
            one dimension (biases, normalisation) count element by element, as in Kwon et al.'s T for filters, which
            is what lets each unit of a layer in front of a normalisation have its own scale.

    >>> from types import SimpleNamespace as Some
    >>> weights = {"w": torch.tensor([[3.0, -4.0], [0.0, 2.0]]), "b": torch.tensor([-1.0, 0.0])}
    >>> origin = torch.cat([part.reshape(-1) for part in weights.values()])
    >>> here = Some(origin=origin, parts=lambda vector: weights, flat=lambda parts: torch.cat([*parts.values()]))
    >>> [scale_of(here, kind).tolist() for kind in ("element", "filter")]
    [[3.0, 4.0, 0.0, 2.0, 1.0, 0.0], [5.0, 5.0, 2.0, 2.0, 1.0, 0.0]]
    """
    origin = objective.origin
    if kind == "unit":
        return torch.ones_like(origin)
    if kind == "element":
        return origin.abs()
    return objective.flat({name: _filter_norms(part).reshape(-1) for name, part in objective.parts(origin).items()})


def _filter_norms(parameter: Tensor) -> Tensor:
    if parameter.dim() < 2:
        return parameter.abs()
    norms: Tensor = parameter.flatten(1).norm(dim=1)
    return norms[:, None].expand(-1, parameter[0].numel())
