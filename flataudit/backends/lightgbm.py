"""LightGBM candidates: model texts, which are data; wrappers of scikit-learn's kind from skops files or pickles."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flataudit.backends.sklearn import missing, read_estimator
from flataudit.contracts import AuditData, Check, Loaded
from flataudit.errors import ModelError
from flataudit.evidence import Record
from flataudit.mlmodel import read_mlmodel
from flataudit.specs import Job

if TYPE_CHECKING:
    import lightgbm
    import pandas
    from numpy import generic
    from numpy.typing import NDArray

    from flataudit.backends.boosting import Boosted

__all__ = ["LightgbmBackend"]

_TYPES = (
    "collections.OrderedDict",
    "collections.defaultdict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
)
"""What a skops file of its wrappers holds: the model's text, and what it was fitted with."""
_VALUES = ("fair", "gamma", "huber", "mape", "poisson", "quantile", "regression", "regression_l1", "tweedie")


class LightgbmBackend(Record):
    """Loads the ``lightgbm`` flavour of an MLflow model folder, without MLflow."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The booster or its wrapper.

        Raises:
            ModelError: damaged, of another task, or answering wrongly; or a package is missing.
            UntrustedError: loading would run its code.
        """
        try:
            import lightgbm

            from flataudit.backends.boosting import boosted_model
            from flataudit.backends.sklearn_model import sklearn_model
        except ModuleNotFoundError as error:
            raise missing(error.name, "lightgbm") from error
        described = read_mlmodel(Path(job.artifact))
        path = described.inside(described.flavour("lightgbm").get("data"))
        if path.suffix not in (".skops", ".pkl", ".pickle", ".joblib"):
            try:
                booster = lightgbm.Booster(model_str=path.read_text(encoding="utf-8"))
            except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
                told = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
                remedy = "the file is damaged: log the model again"
                raise ModelError("a model text of LightGBM", got=told, remedy=remedy) from error
            return boosted_model(_boosted(booster), job, sample, described.signature)
        estimator, trust, notes = read_estimator(described, "lightgbm", "data", trusted=job.trust, types=_TYPES)
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
        """The version of LightGBM."""
        from importlib.metadata import version

        return [Check(name="backends: lightgbm", ok=True, found=f"lightgbm {version('lightgbm')}")]


def _boosted(booster: "lightgbm.Booster") -> "Boosted":
    from flataudit.backends.boosting import Boosted

    described = booster.dump_model(num_iteration=1)
    names = tuple(map(str, booster.feature_name()))

    def scores(rows: "NDArray[generic] | pandas.DataFrame") -> "NDArray[generic]":
        return np.asarray(booster.predict(rows))

    return Boosted(
        library="lightgbm",
        objective=(str(described.get("objective", "")).split() or ["none"])[0],
        meanings={
            **dict.fromkeys(("binary", "cross_entropy", "multiclass", "multiclassova"), "probabilities"),
            **dict.fromkeys(_VALUES, "values"),
        },
        scores=scores,
        names=names,
        features=int(booster.num_feature()),
        classes=max(2, int(booster.num_model_per_iteration())),
    )
