"""Our list of types against skops' own, and the names that pretend to be on it."""

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import artifacts as make
import numpy as np
import pytest
import skops.io
from sklearn.utils import all_estimators
from skops.io import _trusted_types
from skops.io.exceptions import UnsupportedTypeException

from flataudit.admission.examining import admit
from flataudit.admission.skops import foreign_types, types_of
from flataudit.admission.skops_types import is_known
from flataudit.backends.lightgbm import _TYPES
from flataudit.backends.sklearn import _INTERNALS

pytestmark = pytest.mark.filterwarnings("ignore")  # some estimators warn of data or of themselves
X = np.abs(np.random.default_rng(0).normal(size=(12, 3)))
Y = np.arange(12) % 2
SPARSE = "scipy.sparse._csr.csr_matrix"


def test_every_name_that_skops_or_a_backend_takes_is_on_the_list() -> None:
    lists = [getattr(_trusted_types, name) for name in dir(_trusted_types) if name.endswith("_NAMES")]
    taken = {*_INTERNALS, *_TYPES, *(name for names in lists for name in names)}
    assert len(taken) > 500
    assert [name for name in sorted(taken) if not is_known(name)] == []


def named(raw: bytes) -> set[str]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return set(foreign_types(types_of(archive.read("schema.json"))))


def test_every_estimator_is_judged_as_skops_and_the_backend_judge_it() -> None:
    """Without an import of scikit-learn; a sparse matrix is data here, and unknown to skops."""
    compared = 0
    for _, kind in all_estimators():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                raw = skops.io.dumps(kind())
        except (TypeError, ValueError, UnsupportedTypeException):  # it needs arguments, or skops cannot write it
            continue
        theirs = {name for name in skops.io.get_untrusted_types(data=raw) if name not in _INTERNALS}
        assert named(raw) == theirs - {SPARSE}, kind
        compared += 1
    assert compared > 150


def node(module: str, name: str, loader: str = "ObjectNode", **content: Any) -> dict[str, Any]:
    return {"__module__": module, "__class__": name, "__loader__": loader, "content": content}


def function(module: str, name: str) -> dict[str, Any]:
    return node("builtins", "function", "FunctionNode", module_path=module, function=name)


ESTIMATOR = node("sklearn.svm._classes", "SVC")
SPOOFED = {
    "what one of our modules imports": node("sklearn.utils.fixes", "os.system"),
    "a path through one of our classes": node("sklearn.svm._classes", "SVC.__init__.__globals__"),
    "a module that is called like ours": node("sklearn.evil", "SVC"),
    "a package that begins like ours": node("sklearn_extra.svm._classes", "SVC"),
    "a helper of our package that starts threads": node("sklearn.ensemble._forest", "Parallel"),
    "a reader of NumPy's": function("numpy", "load"),
    "a function behind an honest class": function("os", "system"),
    "a method": node("builtins", "function", "MethodNode", func="fit", obj=ESTIMATOR),
    "a partial": node("functools", "partial", "PartialNode", func=function("os", "system")),
    "an operator": node("operator", "methodcaller", "OperatorFuncNode"),
    "a loader of nobody's": node("builtins", "dict", "EvilNode"),
    "a name with a line end": node("sklearn.svm._classes", "SVC\n"),
    "a number as a name": {"__module__": 1, "__class__": 2},
    "another case": node("Sklearn.svm._classes", "SVC"),
    "a look-alike letter": node("sklearn.svm._classes", "SV\u0421"),
}


@pytest.mark.parametrize("one", SPOOFED.values(), ids=SPOOFED)
def test_names_that_only_look_like_ours(one: dict[str, Any], tmp_path: Path) -> None:
    """Inside an honest estimator, at any depth."""
    make.described(tmp_path / "m")
    schema = {**node("sklearn.svm._classes", "SVC", a=node("builtins", "list", "ListNode", b=[one])), "protocol": 2}
    with zipfile.ZipFile(tmp_path / "m/data/model.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    assert admit(tmp_path / "m").verdict == "carries code"


def test_the_honest_estimator_is_data() -> None:
    schema = node("sklearn.svm._classes", "SVC", a=node("builtins", "list", "ListNode", b=[function("numpy", "log1p")]))
    assert foreign_types(types_of(json.dumps(schema).encode())) == ()


def test_a_schema_that_nobody_can_read_is_not_passed_over(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m/data/model.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * (64 * 2**20 + 1))
    assert "too large to read" in admit(tmp_path / "m").listed("refusal")
    assert foreign_types(types_of(b"[" * 100_000)) == foreign_types(types_of(b"{")) == ("unreadable.schema",)
