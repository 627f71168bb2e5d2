"""Random numbers that belong to an example: they depend on seed, stream and the example's own index alone.

A sequential generator would tie the noise on one example to how many came before it, so that order and batch size
would change the numbers. Here each example has a SplitMix64 stream of its own (Steele, Lea and Flood 2014), computed
for all examples at once.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Draws"]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of some examples in one named stream; asking twice gives the same.

    >>> few = Draws(0, "noise/3", np.array([7, 2])).uniforms(3)
    >>> many = Draws(0, "noise/3", np.arange(10)).uniforms(3)
    >>> bool((few == many[[7, 2]]).all())
    True
    """

    seed: int
    stream: str
    """Its purpose; other names give independent numbers."""
    indices: "NDArray[np.int64]"
    """``(n,)`` numbers of the examples in their data set."""

    def uniforms(self, count: int) -> "NDArray[np.float64]":
        """``(n, count)`` in the open interval (0, 1), in steps of 2⁻⁵²."""
        key = hashlib.sha256(f"{self.seed}/{self.stream}".encode()).digest()[:8]
        origin = np.frombuffer(key, dtype="<u8").astype(np.uint64)
        state = _mixed(origin + _mixed((self.indices.astype(np.uint64) + np.uint64(1)) * _GAMMA))
        bits = _mixed(state[:, None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))
        return np.asarray((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def common(self, count: int) -> "NDArray[np.float64]":
        """``(count,)`` uniform numbers that all examples share, and all severities of a kind (``kind/severity``)."""
        shared = Draws(self.seed, f"{self.stream.partition('/')[0]}/all", np.zeros(1, dtype=np.int64))
        return np.asarray(shared.uniforms(count)[0])

    def normals(self, count: int) -> "NDArray[np.float64]":
        """``(n, count)`` standard normal, by inversion."""
        return np.asarray(ndtri(self.uniforms(count)))


def _mixed(bits: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
