"""Conformance suites for those who write plugins: a call a plugin, an `AssertionError` that says what to mend.

In a plugin's own tests::

    from flataudit.testing import check_probe


    def test_it_conforms():
        check_probe(MyProbe())
"""

from flataudit.testing.expectations import require
from flataudit.testing.parts import check_executor, check_registry
from flataudit.testing.probes import check_probe
from flataudit.testing.reports import check_renderer
from flataudit.testing.subjects import Subject

__all__ = ["Subject", "check_executor", "check_probe", "check_registry", "check_renderer", "require"]
