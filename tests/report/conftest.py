import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_SPEC = importlib.util.spec_from_file_location("report_audits", Path(__file__).parent / "audits.py")
assert _SPEC is not None and _SPEC.loader is not None
_AUDITS = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _AUDITS
_SPEC.loader.exec_module(_AUDITS)
_EVERYTHING = _AUDITS.everything()


@pytest.fixture(scope="session")
def audits() -> ModuleType:
    """The synthetic audits."""
    return _AUDITS


@pytest.fixture(params=list(_EVERYTHING))
def audited(request: pytest.FixtureRequest) -> tuple[object, object]:
    """Each audit in turn: record and arrays."""
    return _EVERYTHING[request.param]
