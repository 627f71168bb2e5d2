import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the small world is importable by the tests beside

from small_world import World, built


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., World]:
    """``build(signer=None)``: a world with settings of its own."""
    return lambda **settings: built(tmp_path / "world", **settings)


@pytest.fixture
def world(build: Callable[..., World]) -> World:
    return build()
