"""flataudit measures how flat, robust and calibrated candidate models are, and decides which one to promote.

In a notebook::

    import flataudit

    evidence = flataudit.measure(model, inputs, targets, probes=["hessian_trace", "lambda_max"], seed=0)
    evidence["hessian_trace"].estimate, evidence["hessian_trace"].standard_error

Importing the package imports neither torch nor any other heavy library.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flataudit.api import compare as compare
    from flataudit.api import measure as measure
    from flataudit.judge import decide as decide

__all__ = ["__version__", "compare", "decide", "measure"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import the notebook functions when they are first used."""
    if name in ("compare", "measure"):
        # by name, so that importing the package (which the command line does) leads to nothing heavy
        return getattr(importlib.import_module("flataudit.api"), name)
    if name == "decide":
        from flataudit.judge import decide

        return decide
    raise AttributeError(f"module 'flataudit' has no attribute {name!r}")
