import numpy as np
import pytest
from scipy import stats

from flataudit.corruptions.draws import Draws

N = np.arange(2000)


def test_first_numbers_are_splitmix64():
    """A plain-integer SplitMix64, started from the state of example 5."""
    import hashlib

    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mixed(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    key = int.from_bytes(hashlib.sha256(b"3/blur").digest()[:8], "little")
    state = mixed((key + mixed((6 * gamma) & mask)) & mask)
    expected = [((mixed((state + j * gamma) & mask) >> 12) + 0.5) / 2**52 for j in (1, 2, 3)]
    assert Draws(3, "blur", np.array([5])).uniforms(3)[0].tolist() == expected


@pytest.mark.parametrize("axis", [0, 1])
def test_uniform_and_uncorrelated_over_examples_and_within(axis):
    drawn = Draws(0, "s", N).uniforms(50)
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    near = np.corrcoef(
        drawn.take(range(drawn.shape[axis] - 1), axis).ravel(),
        np.roll(drawn, -1, axis).take(range(drawn.shape[axis] - 1), axis).ravel(),
    )[0, 1]
    assert abs(near) < 4 / np.sqrt(drawn.size)


def test_normals_are_normal_and_finite():
    drawn = Draws(1, "s", N).normals(50)
    assert stats.kstest(drawn.ravel(), "norm").pvalue > 1e-3 and np.isfinite(drawn).all()


def test_streams_and_seeds_are_independent():
    base = Draws(0, "noise/1", N).uniforms(20).ravel()
    for other in (Draws(1, "noise/1", N), Draws(0, "noise/3", N), Draws(0, "impulse/1", N)):
        assert abs(np.corrcoef(base, other.uniforms(20).ravel())[0, 1]) < 4 / np.sqrt(base.size)


def test_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    Draws(0, "s", N).normals(3)
    assert np.array_equal(before, np.random.get_state()[1])
