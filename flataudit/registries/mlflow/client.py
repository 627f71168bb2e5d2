"""A client of MLflow that is impatient, and whose failures are flataudit's errors, without credentials in them."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import mlflow
import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from flataudit.errors import ConfigurationError, NotFoundError, RegistryError, UnreachableError

__all__ = ["connect", "is_missing", "is_silence", "retried", "shown", "speaking"]

T = TypeVar("T")
_MANNERS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to --json
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_HEALTH_SECONDS = (4.0, 6.0)
"""For the connection, and for the first byte of an answer."""
_NOBODY_HOME = (502, 503, 504)
_LOST_RACE = ("unique constraint", "duplicate key", "duplicate entry")


def connect(uri: str) -> mlflow.MlflowClient:
    """A client of one tracking server or database file, for runs and for models.

    Raises:
        ConfigurationError: MLflow knows no such kind of registry.
        UnreachableError: nobody answers there within ten seconds, or there is no such file.
    """
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    parts = urlsplit(uri)
    if not parts.scheme:
        remedy = "write http://host:port, or sqlite:///path/mlflow.db"
        raise ConfigurationError("a tracking URI", got=repr(uri), remedy=remedy)
    if parts.scheme in ("http", "https"):
        _greet(uri)
    if parts.scheme == "sqlite" and not Path(parts.path[1:]).is_file():
        raise _unreachable(uri, "no such file")  # MLflow would make an empty database there
    with speaking(uri):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _greet(uri: str) -> None:
    """Any answer counts, a refusal too, but a gateway's; a certificate unknown here is MLflow's to judge."""
    url = f"{shown(uri).rstrip('/')}/health"
    try:
        with requests.get(url, timeout=_HEALTH_SECONDS, allow_redirects=False, stream=True) as answer:
            status = answer.status_code
    except requests.exceptions.SSLError:
        return
    except (requests.RequestException, ValueError) as error:
        raise _unreachable(uri, _cause(error)) from error
    if status in _NOBODY_HOME:
        raise _unreachable(uri, f"HTTP {status} from a gateway before it")


@contextmanager
def speaking(uri: str) -> Iterator[None]:
    """MLflow's own failures as flataudit's.

    Raises:
        NotFoundError: the registry says that there is no such thing.
        UnreachableError: it does not answer (any more).
        RegistryError: it refuses.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        told = _clean(str(error), uri)
        if is_silence(error):
            raise _unreachable(uri, told) from error
        if isinstance(error, MlflowException) and is_missing(error):
            remedy = "it may have been deleted meanwhile: look at the registry"
            raise NotFoundError(f"what was asked for at {shown(uri)}", got=told, remedy=remedy) from error
        remedy = "see the server's log, or `flataudit doctor`"
        raise RegistryError(f"the registry at {shown(uri)} to do as it was asked", got=told, remedy=remedy) from error


def is_missing(error: MlflowException) -> bool:
    """Whether the registry answered that there is no such thing (it calls an absent alias an invalid value)."""
    absent_alias = error.error_code == "INVALID_PARAMETER_VALUE" and str(error).rstrip(".").endswith("not found")
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or absent_alias


def is_silence(error: BaseException) -> bool:
    """Whether a request got no answer at all; MLflow tells that only in words."""
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return True
    words = (
        "failed with exception",
        "failed with timeout exception",
        "Max retries exceeded",
        "Read timed out",
        "Connection aborted",
        "Connection reset",
        "unable to open database file",
    )
    return isinstance(error, MlflowException | SQLAlchemyError) and any(word in str(error) for word in words)


def retried(write: Callable[[], T], *, attempts: int = 5) -> T:
    """Repeat a write that lost the race of two first writes (400, UNIQUE constraint), which MLflow does not retry.

    Only for writes that may be repeated: the second attempt finds the winner's row and updates it.
    """
    for attempt in range(attempts - 1):
        try:
            return write()
        except MlflowException as error:
            if not any(word in str(error).lower() for word in _LOST_RACE):
                raise
            time.sleep(0.05 * 2**attempt)
    return write()


def shown(uri: str) -> str:
    """The URI without credentials.

    >>> shown("https://user:secret@host:5000/x?token=1")
    'https://host:5000/x'
    >>> shown("sqlite:////data/mlflow.db")
    'sqlite:////data/mlflow.db'
    """
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _unreachable(uri: str, told: str) -> UnreachableError:
    remedy = "start it, or name another with --tracking-uri or MLFLOW_TRACKING_URI"
    return UnreachableError(f"an MLflow registry at {shown(uri)}", got=_clean(told, uri), remedy=remedy)


def _cause(error: BaseException) -> str:
    """A few words on why a request got no answer; the message itself repeats the URI at length."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return str(error)


def _clean(told: str, uri: str) -> str:
    """The first line, without the secrets that the URI holds."""
    parts = urlsplit(uri)
    secrets = (parts.netloc.rpartition("@")[0], parts.password, parts.username, parts.query)
    for secret in [form for given in secrets if given for form in (given, unquote(given))]:
        told = told.replace(secret, "***")
    return told.strip().partition("\n")[0][:300] or "no message"
