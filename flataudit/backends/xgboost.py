"""XGBoost candidates: files in its own formats, which are data, as boosters or as the wrappers that wrote them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from flataudit.backends.sklearn import missing
from flataudit.contracts import AuditData, Check, Loaded
from flataudit.errors import ModelError
from flataudit.evidence import Record
from flataudit.mlmodel import MLModel, read_mlmodel
from flataudit.specs import Job

if TYPE_CHECKING:
    import pandas
    import xgboost
    from numpy import generic
    from numpy.typing import NDArray

    from flataudit.backends.boosting import Boosted

__all__ = ["XgboostBackend"]

_WRAPPERS = ("XGBClassifier", "XGBRFClassifier", "XGBRFRegressor", "XGBRegressor")


class XgboostBackend(Record):
    """Loads the ``xgboost`` flavour of an MLflow model folder, without MLflow."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The booster, or the wrapper of scikit-learn's kind that the MLmodel names, if it is one of XGBoost's own.

        Raises:
            ModelError: damaged, of another class or task, or answering wrongly; or a package is missing.
        """
        try:
            import xgboost

            from flataudit.backends.boosting import boosted_model
            from flataudit.backends.sklearn_model import sklearn_model
        except ModuleNotFoundError as error:
            raise missing(error.name, "xgboost") from error
        described = read_mlmodel(Path(job.artifact))
        wrapper = _wrapper(described)
        model = xgboost.Booster() if wrapper is None else getattr(xgboost, wrapper)()
        path = described.inside(described.flavour("xgboost").get("data"))
        try:
            model.load_model(bytearray(path.read_bytes()))
        except (xgboost.core.XGBoostError, TypeError, ValueError, KeyError) as error:
            told = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
            remedy = "the file is damaged, or of another version: log the model again"
            raise ModelError("a model file of XGBoost (json or ubj)", got=told, remedy=remedy) from error
        if wrapper is None:
            return boosted_model(_boosted(model), job, sample, described.signature)
        return sklearn_model(
            model,
            sample,
            job.task,
            outputs=job.outputs,
            loss=job.loss,
            signature=described.signature,
            batch_size=job.batch_size,
            dtype=job.dtype,
            device=job.device,
            trust="data_only",
        )

    def check(self) -> list[Check]:
        """The version of XGBoost."""
        from importlib.metadata import version

        return [Check(name="backends: xgboost", ok=True, found=f"xgboost {version('xgboost')}")]


def _wrapper(described: MLModel) -> str | None:
    """The name of XGBoost's own class that wrote the file; None: a booster."""
    named = str(described.flavour("xgboost").get("model_class", "xgboost.core.Booster"))
    if named in ("xgboost.core.Booster", "xgboost.Booster"):
        return None
    module, _, name = named.rpartition(".")
    if module not in ("xgboost", "xgboost.sklearn") or name not in _WRAPPERS:
        remedy = "log one of these, or its booster"
        raise ModelError(f"one of Booster, {', '.join(_WRAPPERS)}", got=named[:100], remedy=remedy)
    return name


def _boosted(model: "xgboost.Booster") -> "Boosted":
    import xgboost

    from flataudit.backends.boosting import Boosted

    learner = json.loads(model.save_config())["learner"]
    objective, classes = str(learner["objective"]["name"]), int(learner["learner_model_param"]["num_class"])

    def scores(rows: "NDArray[generic] | pandas.DataFrame") -> "NDArray[generic]":
        names = model.feature_names if not hasattr(rows, "columns") else None
        matrix = xgboost.DMatrix(rows, feature_names=names, enable_categorical=True)
        found: NDArray[generic] = model.predict(matrix, output_margin=objective == "multi:softmax")
        return found

    return Boosted(
        library="xgboost",
        objective=objective,
        meanings={
            "binary:logistic": "probabilities",
            "binary:logitraw": "logits",
            "multi:softprob": "probabilities",
            "multi:softmax": "logits",
            "reg:*": "values",
            "count:poisson": "values",
        },
        scores=scores,
        names=None if model.feature_names is None else tuple(map(str, model.feature_names)),
        features=int(model.num_features()),
        classes=max(2, classes),
    )
