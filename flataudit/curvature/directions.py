"""Random directions in the space of weights that are as long as the filters they are added to (Li et al. 2018)."""

from collections.abc import Mapping

import torch

from flataudit.curvature.randomness import normals

__all__ = ["filter_normalised"]


def filter_normalised(parameters: Mapping[str, torch.Tensor], source: torch.Generator) -> torch.Tensor:
    """A Gaussian direction ``(parameters,)``, each filter of it scaled to the norm of the model's filter, once.

    A filter is a slice along the first dimension; tensors of one dimension (biases, normalisation) are one filter.

    >>> weights = {"w": torch.tensor([[3.0, 4.0], [0.0, 0.0]]), "b": torch.tensor([0.0, 2.0])}
    >>> found = filter_normalised(weights, torch.Generator().manual_seed(0))
    >>> [round(float(part.norm()), 5) for part in (found[:2], found[2:4], found[4:])]
    [5.0, 0.0, 2.0]
    """
    parts = []
    for parameter in parameters.values():
        filters = parameter.detach().reshape(len(parameter) if parameter.dim() > 1 else 1, -1)
        drawn = normals(filters, source)
        lengths = filters.norm(dim=1, keepdim=True) / drawn.norm(dim=1, keepdim=True)
        parts.append((drawn * lengths).reshape(-1))
    return torch.cat(parts)
