"""Who is champion and who challenges: versions and logged models as `Candidate`s."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import cast

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import JsonValue

from flataudit.errors import ConfigurationError, NotFoundError
from flataudit.evidence import Candidate
from flataudit.registries.mlflow.checkpoints import of_run, of_sweep
from flataudit.registries.mlflow.client import is_missing

__all__ = ["aliased", "candidate", "challengers", "check_model", "logged_model", "versions_of"]

_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}")
_RESERVED = re.compile(r"latest|v[0-9]+", re.IGNORECASE)
_PAGE = 200
_NAMES = 1000


def check_model(client: mlflow.MlflowClient, model: str) -> None:
    """Raise `NotFoundError`, with near names, unless the registry has the model."""
    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if not is_missing(error):
            raise
        known = [found.name for found in client.search_registered_models(max_results=_NAMES)]
        near = difflib.get_close_matches(model, known, n=3)
        remedy = f"did you mean {' or '.join(near)}?" if near else "register a version of it first"
        raise NotFoundError("a registered model", got=repr(model), remedy=remedy) from error


def aliased(client: mlflow.MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to; None only when the registry says that there is no such alias.

    Raises:
        ConfigurationError: nobody can set such an alias (MLflow answers the newest version to ``latest``).
    """
    if not _ALIAS.fullmatch(alias) or _RESERVED.fullmatch(alias):
        remedy = "write letters, digits, _ and - (not latest, not v and a number)"
        raise ConfigurationError("an alias that MLflow allows", got=repr(alias), remedy=remedy)
    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if is_missing(error):
            return None
        raise


def candidate(client: mlflow.MlflowClient, version: ModelVersion) -> Candidate:
    """A registered version; its logged model is found through the source, since the version does not say it."""
    return Candidate(
        name=version.name,
        version=str(version.version),
        run_id=version.run_id or None,
        model_id=logged_model(version),
        uri=f"models:/{version.name}/{version.version}",
        title=_run_name(client, version.run_id),
    )


def logged_model(version: ModelVersion) -> str | None:
    """The logged model behind a version, which MLflow tells only in the version's source."""
    source = str(version.source or "")
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def challengers(
    client: mlflow.MlflowClient, model: str, chosen: Mapping[str, JsonValue], champion: str | None
) -> list[Candidate]:
    """The chosen candidates without the champion (by its version).

    Raises:
        NotFoundError: the choice names what does not exist.
    """
    if "run" in chosen:
        return of_run(client, str(chosen["run"]))
    if "sweep" in chosen:
        return of_sweep(client, cast("Mapping[str, JsonValue]", chosen["sweep"]))
    found = [v for v in _chosen(client, model, chosen) if str(v.version) != champion]
    if "newest" in chosen:
        found = found[: cast("int", chosen["newest"])]
    return [candidate(client, version) for version in found]


def versions_of(client: mlflow.MlflowClient, model: str) -> list[ModelVersion]:
    """All versions, newest first; a version that two pages share (paging is by offset) counts once."""
    quote = "'" if '"' in model else '"'  # MLflow knows no way to escape one
    found: dict[int, ModelVersion] = {}
    token = None
    while True:
        page = client.search_model_versions(f"name={quote}{model}{quote}", max_results=_PAGE, page_token=token)
        found |= {int(version.version): version for version in page}
        token = page.token
        if not token:
            return [found[number] for number in sorted(found, reverse=True)]


def _chosen(client: mlflow.MlflowClient, model: str, chosen: Mapping[str, JsonValue]) -> Sequence[ModelVersion]:
    if "alias" in chosen:
        alias = str(chosen["alias"])
        version = aliased(client, model, alias)
        if version is None:
            known = ", ".join(sorted(client.get_registered_model(model).aliases)) or "none"
            remedy = f"set it on a version, or choose challengers another way; aliases there are: {known}"
            raise NotFoundError(f"the alias {alias!r} on {model!r}", got="none", remedy=remedy)
        return [version]
    if "aliases" in chosen:
        return _behind(client, model, [str(alias) for alias in cast("list[JsonValue]", chosen["aliases"])])
    every = versions_of(client, model)
    if "versions" in chosen:
        wanted = [str(v) for v in cast("list[JsonValue]", chosen["versions"])]
        by_number = {str(v.version): v for v in every}
        lacking = [v for v in wanted if v not in by_number]
        if lacking:
            known = ", ".join(sorted(by_number, key=int)) or "none"
            raise NotFoundError(f"version {lacking[0]} of {model!r}", got=f"only {known}", remedy="name one of those")
        return [by_number[v] for v in dict.fromkeys(wanted)]
    if "tag" in chosen:
        tags = cast("dict[str, str]", chosen["tag"])
        found = [v for v in every if all(v.tags.get(key) == str(value) for key, value in tags.items())]
        if not found:
            remedy = "tag the candidates, or choose them another way"
            raise NotFoundError(f"versions of {model!r} with tags {tags}", got="none", remedy=remedy)
        return found
    if "newest" in chosen:
        return every
    known = "alias, aliases, newest, versions, tag, run or sweep"
    raise ConfigurationError(known, got=", ".join(chosen) or "none", remedy="give one")


def _behind(client: mlflow.MlflowClient, model: str, aliases: Sequence[str]) -> list[ModelVersion]:
    """The versions behind several aliases, each once; every alias must be there."""
    found: dict[str, ModelVersion] = {}
    for alias in aliases:
        (version,) = _chosen(client, model, {"alias": alias})
        found.setdefault(str(version.version), version)
    return list(found.values())


def _run_name(client: mlflow.MlflowClient, run_id: str | None) -> str | None:
    if not run_id:
        return None
    try:
        return str(client.get_run(run_id).info.run_name)
    except MlflowException as error:
        if is_missing(error):
            return None
        raise
