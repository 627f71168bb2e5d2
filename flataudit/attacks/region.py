"""Which perturbations are allowed: a ball around each input, in the data's own units, cut to the data's range.

Attacks move in units of the ball: ``z = (x − centre) / (ε s)``, with s the unit of each value, so that L∞ is
|z| ≤ 1 and L2 is ‖z‖ ≤ 1 whatever the data are measured in. A value that never varies has s = 0 and stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from flataudit.corruptions.draws import Draws
from flataudit.corruptions.scale import moments
from flataudit.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ball", "Limits", "Norm", "Region", "Room", "Unit", "lengths"]

Norm = Literal["linf", "l2"]
Unit = Literal["deviation", "range", "input"]
Limits = Literal["data", "none"] | tuple[float, float]


@dataclass(frozen=True, eq=False)
class Room:
    """The unit of perturbations and the range of inputs, each ``()`` or, for tables, ``(features,)``."""

    scale: "NDArray[np.float64]"
    low: "NDArray[np.float64]"
    high: "NDArray[np.float64]"

    @classmethod
    def of(cls, inputs: "NDArray[np.generic]", *, unit: Unit, limits: Limits, by_feature: bool) -> "Room":
        """That of a whole data set.

        Args:
            inputs: ``(n, …)`` in floating point.
            unit: ``deviation`` and ``range`` of the values, or ``input``: 1.
            limits: ``data``: smallest and largest value; ``none``; or two numbers.
            by_feature: of each feature, as in tables, and not of all values together.

        Raises:
            ConfigurationError: inputs outside of the declared limits.

        >>> room = Room.of(np.array([[0.0, 10.0], [2.0, 30.0]]), unit="deviation", limits="data", by_feature=True)
        >>> room.scale.tolist(), room.low.tolist(), room.high.tolist()
        ([1.0, 10.0], [0.0, 10.0], [2.0, 30.0])
        """
        axis = 0 if by_feature else None
        smallest, largest = (np.asarray(end(inputs, axis=axis), dtype=np.float64) for end in (np.min, np.max))
        if unit == "deviation":
            scale = moments(inputs, by_feature=by_feature)[1]
        else:
            scale = largest - smallest if unit == "range" else np.ones_like(largest)
        if limits == "data":
            return cls(scale, smallest, largest)
        low, high = (-np.inf, np.inf) if limits == "none" else limits
        if np.min(smallest) < low or np.max(largest) > high:
            got = f"{np.min(smallest):g} to {np.max(largest):g}"
            remedy = "correct `limits`, or leave it out: the data's own range"
            raise ConfigurationError(f"inputs within the declared limits {low:g} to {high:g}", got=got, remedy=remedy)
        return cls(scale, np.full_like(smallest, low), np.full_like(largest, high))

    def moving(self, movable: Sequence[bool] | None) -> "Room":
        """The same, where what must not move (a category's number) has no scale."""
        return self if movable is None else replace(self, scale=np.where(np.asarray(movable), self.scale, 0.0))


@dataclass(frozen=True, eq=False)
class Ball:
    """The perturbations of some examples; z is ``(n, …)`` in the shape of the inputs."""

    norm: Norm
    room: Room
    centres: "NDArray[np.floating]"
    """``(n, …)``, the inputs themselves."""
    span: "NDArray[np.floating]"
    """ε s, what z is measured in, broadcast to an input."""
    low: "NDArray[np.floating]"
    """``(n, …)``, the smallest z that the range of inputs allows; at most 0."""
    high: "NDArray[np.floating]"
    """The largest; at least 0."""

    def __len__(self) -> int:
        return len(self.centres)

    def only(self, kept: "NDArray[np.bool_ | np.int64]") -> "Ball":
        """Of some of the examples, by a mask or by numbers."""
        return Ball(self.norm, self.room, self.centres[kept], self.span, self.low[kept], self.high[kept])

    def still(self) -> "NDArray[np.floating]":
        """Z of the inputs themselves: 0."""
        return np.zeros_like(self.low)

    def random(self, draws: Draws) -> "NDArray[np.floating]":
        """Z uniform in the ball, then cut to the range; by radii u^(1/d) in d dimensions."""
        size = self.low[0].size
        if self.norm == "linf":
            return self.inside((2 * draws.uniforms(size) - 1).reshape(self.low.shape))
        directions = draws.normals(size).reshape(self.low.shape)
        shares = Draws(draws.seed, f"{draws.stream}/length", draws.indices).uniforms(1)[:, 0] ** (1 / size)
        return self.inside(directions / lengths(directions) * shares.reshape(-1, *[1] * (self.low.ndim - 1)))

    def inside(self, z: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """The nearest allowed z: drawn back to the ball, then cut to the range of inputs."""
        if self.norm == "l2":
            z = z / np.maximum(lengths(z), 1)
        return np.asarray(np.clip(z, self.low, self.high), dtype=self.low.dtype)

    def steepest(self, slopes: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """The z of length 1 along which a function of these slopes ∂/∂z rises most; 0 where all slopes are."""
        if self.norm == "linf":
            return np.asarray(np.sign(slopes))
        return np.asarray(slopes / np.maximum(lengths(slopes), np.finfo(slopes.dtype).tiny))

    def at(self, z: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """The inputs ``(n, …)`` at z, in the dtype of the data and never outside of the range."""
        low, high = (end.astype(self.low.dtype) for end in (self.room.low, self.room.high))
        moved = np.clip(self.centres + self.span * z, low, high)
        return np.asarray(moved, dtype=self.centres.dtype)


@dataclass(frozen=True)
class Region:
    """The ball of one radius, around whichever inputs."""

    room: Room
    norm: Norm
    epsilon: float
    """Radius, in the room's unit."""

    def around(self, inputs: "NDArray[np.generic]") -> Ball:
        """Around each input, ``(n, …)``."""
        centres = cast("NDArray[np.floating]", inputs)
        working = np.float32 if inputs.dtype.itemsize <= 4 else np.float64
        radii = np.broadcast_to(self.epsilon * self.room.scale, inputs.shape[1:])
        moves, unit = radii > 0, np.where(radii > 0, radii, 1)
        ends = [(limit - centres.astype(np.float64)) / unit for limit in (self.room.low, self.room.high)]
        reach = 1 if self.norm == "linf" else np.inf
        low, high = (np.where(moves, np.clip(end, -reach, reach), 0).astype(working) for end in ends)
        span: NDArray[np.floating] = radii.astype(working)
        return Ball(self.norm, self.room, centres, span, np.minimum(low, 0), np.maximum(high, 0))


def lengths(z: "NDArray[np.floating]") -> "NDArray[np.floating]":
    """‖z‖₂ of each example, in the shape ``(n, 1, …)``."""
    found = np.linalg.norm(z.reshape(len(z), -1).astype(np.float64), axis=1)
    return np.asarray(found.astype(z.dtype).reshape(-1, *[1] * (z.ndim - 1)))
