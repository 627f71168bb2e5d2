"""Random vectors that depend on a seed and a purpose alone: the same on every device and after whatever ran before."""

import zlib

import numpy as np
import torch

__all__ = ["generator", "normals", "signs"]


def generator(seed: int, purpose: str) -> torch.Generator:
    """A generator on the CPU for one purpose of one seed; different purposes share no stream.

    >>> first, second = (torch.rand(3, generator=generator(0, "trace")) for _ in range(2))
    >>> bool((first == second).all()), bool((first == torch.rand(3, generator=generator(0, "noise"))).any())
    (True, False)
    """
    state = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def signs(count: int, like: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Rademacher vectors ``(count, parameters)`` of −1 and +1, on the device and in the dtype of ``like``."""
    drawn = torch.randint(0, 2, (count, like.numel()), generator=source, dtype=torch.int8)
    return drawn.mul_(2).sub_(1).to(like.device, like.dtype)


def normals(like: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Standard normal numbers in the shape of ``like``, on its device and in its dtype; drawn in float64."""
    return torch.randn(like.shape, generator=source, dtype=torch.float64).to(like.device, like.dtype)
