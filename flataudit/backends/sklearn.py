"""scikit-learn candidates: skops files, read with our own list of types, and, when trusted, pickles.

A skops file names the types that it is made of, and MLflow would trust those that the candidate's own MLmodel lists.
Here the list is ours: estimators of scikit-learn and arrays of NumPy and SciPy, and the few of their internals that
honest models consist of. Whatever else a file names is refused before anything is built.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flataudit.contracts import AuditData, Check, Loaded
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Record
from flataudit.mlmodel import MLModel, read_mlmodel
from flataudit.specs import Job

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = ["SklearnBackend", "missing", "read_estimator"]

_INTERNALS = (
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *(
        f"sklearn.gaussian_process.kernels.{kernel}"
        for kernel in ("ConstantKernel", "DotProduct", "Matern", "Product", "RBF", "Sum", "WhiteKernel")
    ),
    *(
        f"sklearn.metrics._dist_metrics.{name}Distance64"
        for name in ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
    ),
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)
"""What fitted estimators hold, beside the types that skops itself trusts: data, and functions without effects."""


class SklearnBackend(Record):
    """Loads the ``sklearn`` flavour of an MLflow model folder, without MLflow."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The estimator, and its torch twin where one is known, checked on the sample.

        Raises:
            ModelError: damaged, of another task, or answering wrongly; or a package is missing.
            UntrustedError: loading would run its code.
        """
        try:
            from flataudit.backends.sklearn_model import sklearn_model  # a plain message where the package is missing
        except ModuleNotFoundError as error:
            raise missing(error.name, "sklearn") from error
        described = read_mlmodel(Path(job.artifact))
        estimator, trust, notes = read_estimator(described, "sklearn", "pickled_model", trusted=job.trust)
        loaded = sklearn_model(
            estimator,
            sample,
            job.task,
            outputs=job.outputs,
            loss=job.loss,
            signature=described.signature,
            batch_size=job.batch_size,
            dtype=job.dtype,
            device=job.device,
            trust=trust,
        )
        return Loaded(loaded.model, trust, (*notes, *loaded.notes))

    def check(self) -> list[Check]:
        """Versions of what reads and runs them."""
        from importlib.metadata import version

        found = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "skops"))
        return [Check(name="backends: sklearn", ok=True, found=found)]


def missing(package: str | None, extra: str) -> ModelError:
    """The error of a package that is not installed."""
    remedy = f"pip install 'flataudit[{extra}]'"
    return ModelError(f"the package {package} of models of flavour {extra}", got="not installed", remedy=remedy)


def read_estimator(
    described: MLModel, flavour: str, key: str, *, trusted: bool, types: Sequence[str] = ()
) -> "tuple[BaseEstimator, Literal['data_only', 'code_bearing'], tuple[str, ...]]":
    """An estimator from a skops file or a pickle, what to think of it, and notes.

    Args:
        described: the MLmodel file.
        flavour: whose setting ``key`` names the file.
        key: of that setting.
        trusted: whether code of the candidate may run.
        types: names of types beyond those of scikit-learn that a skops file may hold.

    Raises:
        ModelError: no such file, or damaged.
        UntrustedError: a pickle, or a skops file of types that are not known.
    """
    path = described.inside(described.flavour(flavour).get(key))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if path.suffix == ".skops":
            estimator, trust = _from_skops(path.read_bytes(), types, trusted=trusted)
        else:
            estimator, trust = _from_pickle(path, trusted=trusted), "code_bearing"
    notes = dict.fromkeys(
        f"written by another version: {_first(warning.message)}"
        for warning in told
        if type(warning.message).__name__ == "InconsistentVersionWarning"
    )
    if not hasattr(estimator, "predict"):
        remedy = "log the fitted estimator"
        raise ModelError("an estimator with predict", got=f"a {type(estimator).__name__}", remedy=remedy)
    _stay_in_this_process(estimator)
    return estimator, trust, tuple(notes)


def _stay_in_this_process(estimator: "BaseEstimator") -> None:
    """``n_jobs=-1`` would start processes, which a worker may not."""
    from flataudit.backends.sklearn_inputs import unwrapped

    steps, final = unwrapped(estimator)
    for part in (*steps, final):
        if type(part).__module__.startswith("sklearn.") and getattr(part, "n_jobs", None) is not None:
            part.n_jobs = None


def _from_skops(
    content: bytes, types: Sequence[str], *, trusted: bool
) -> "tuple[BaseEstimator, Literal['data_only', 'code_bearing']]":
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise missing(error.name, "sklearn") from error
    ours = [*_INTERNALS, *types]
    try:
        unknown = [name for name in skops.io.get_untrusted_types(data=content) if name not in ours]
    except Exception as error:
        remedy = "the file is damaged, or of a newer skops: log the model again"
        raise ModelError("a whole skops file", got=_told(error), remedy=remedy) from error
    if unknown and not trusted:
        got = f"one that also holds {', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}"
        remedy = "pass --trust if you trust its author"
        raise UntrustedError("a skops file of scikit-learn's types alone", got=got, remedy=remedy)
    try:
        estimator = skops.io.loads(content, trusted=[*ours, *unknown])
    except Exception as error:
        remedy = "load it in the environment that it was logged in, or log it again"
        raise ModelError("an estimator that this scikit-learn can build", got=_told(error), remedy=remedy) from error
    from flataudit.backends.sklearn_trees import make_sound

    make_sound(estimator)
    return estimator, "code_bearing" if unknown else "data_only"


def _from_pickle(path: Path, *, trusted: bool) -> "BaseEstimator":
    if not trusted:
        raise UntrustedError(
            "a format that is data only",
            got="a pickled estimator, whose loading runs its own code",
            remedy="log it with serialization_format='skops', or pass --trust",
        )
    import joblib  # reads plain pickles too, and comes with scikit-learn

    try:
        return joblib.load(path)
    except Exception as error:
        remedy = "install the package that defines its class, or log the model again"
        raise ModelError("a pickled estimator that loads here", got=_told(error), remedy=remedy) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {_first(error)[:300]}"


def _first(message: object) -> str:
    return (str(message).strip().splitlines() or [""])[0]
