"""The command line and the core stay light, whatever the linter can or cannot see."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "sklearn", "onnxruntime", "mlflow", "ray", "matplotlib", "jinja2", "scipy", "pandas")


@pytest.mark.parametrize(
    "module", ["flataudit", "flataudit.cli", "flataudit.commands", "flataudit.terminal", "flataudit.audit"]
)
def test_a_fresh_interpreter_holds_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
