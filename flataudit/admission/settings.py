"""What an MLmodel file asks of whoever loads it: paths, loaders, code, and settings that pass to a library unfiltered.

MLflow does what the file says. Some of it runs code before the model is even opened, and some reads files of the host;
here every flavour is read, not only the one that is audited, since whoever serves the model may load another.
"""

import re
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from flataudit.admission.archives import leaves
from flataudit.evidence import Finding
from flataudit.mlmodel import MLModel

__all__ = ["asked"]

_PATHS = frozenset(
    {
        *("artifact_path", "artifacts", "code", "code_path", "code_paths", "conda", "config_path", "data", "data_path"),
        *("env", "extra_files", "feature_extractor", "image_processor", "keras_model", "model", "model_binary"),
        *("model_config_path", "model_data", "model_path", "path", "pickled_model", "processor"),
        *("python_env", "python_model", "requirements_file", "saved_model_dir", "tokenizer", "virtualenv"),
    }
)
"""Settings that name files of the artifact, also in lists and mappings. Not ``model_code_path``, of which MLflow writes
where it once lay and uses the name alone; it is code in any case."""
_ELSEWHERE = frozenset({"uri", "model_name", "source_model_name", "class_name", "type", "name"})
"""Beside those, settings that say where a thing once came from."""
_LOADERS = re.compile(
    r"mlflow\.(catboost|fastai|gluon|h2o|keras|lightgbm|mleap|onnx|paddle|pmdarima|prophet|pytorch|sentence_transformers"
    r"|shap|sklearn|spacy|spark|statsmodels|tensorflow|transformers|xgboost)"
)
"""MLflow's own, each of a library; ``mlflow.pyfunc.model`` runs the author's class."""
_NOT_FOLLOWED = frozenset({"onnx_session_options", "provider_options", "providers", "skops_trusted_types"})
"""flataudit loads with settings of its own."""


def asked(described: MLModel) -> Iterator[Finding]:
    """Findings of every flavour."""
    for flavour, settings in described.flavours.items():
        for place, key, value in _leaves(dict(settings), (), ""):
            where = ".".join((flavour, *place))
            if key in _PATHS and isinstance(value, str) and (wrong := leaves(value)) is not None:
                yield Finding(kind="refusal", path="MLmodel", what=wrong, detail=f"{where}: {_shown(value)}")
        yield from _code(flavour, settings)
        for key in sorted(_NOT_FOLLOWED & settings.keys()):
            if settings[key]:
                detail = f"{flavour}.{key}: {_shown(settings[key])}"
                yield Finding(kind="note", path="MLmodel", what="a setting that is not followed", detail=detail)


def _code(flavour: str, settings: Mapping[str, JsonValue]) -> Iterator[Finding]:
    loader = settings.get("loader_module")
    if loader is not None and not (isinstance(loader, str) and _LOADERS.fullmatch(loader)):
        detail = f"{flavour}.loader_module: {_shown(loader)}"
        yield Finding(kind="code", path="MLmodel", what="a loader of the author's own", detail=detail)
    words = {
        "code": "a folder of code that is imported",
        "code_path": "a folder of code that is imported",
        "code_paths": "a folder of code that is imported",
        "model_code_path": "a model from code",
        "trust_remote_code": "code from a hub",
    }
    for key, what in words.items():
        if settings.get(key):
            detail = f"{flavour}.{key}: {_shown(settings[key])}"
            yield Finding(kind="code", path="MLmodel", what=what, detail=detail)


def _leaves(value: JsonValue, place: tuple[str, ...], key: str) -> "Iterator[tuple[tuple[str, ...], str, JsonValue]]":
    """Place, name of the setting that decides what it is, and value; what lies under a path's name is a path too."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            inherits = key in _PATHS and name not in _ELSEWHERE and name not in _PATHS
            yield from _leaves(item, (*place, name), key if inherits else name)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, place, key)
    else:
        yield place, key, value


def _shown(value: JsonValue) -> str:
    return repr(value)[:120]
