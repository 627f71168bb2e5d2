"""An MLflow of dictionaries, for what a real one is too slow for: it asks leave before and after every request.

It keeps to what was measured on real servers: params are written once, aliases and tags belong to whoever writes last,
an experiment's name is given once, and an absent alias is an invalid value. `test_small_mlflow` compares the two.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from flataudit.evidence import Candidate
from flataudit.manifest import manifest_digest

MODEL, URI = "fraud", "http://small"


class Crash(BaseException):
    """The process is gone: nothing it holds matters any more, and no handler of its runs."""


@dataclass
class Store:
    """The registry's own memory."""

    folder: Path
    runs: dict[str, SimpleNamespace] = field(default_factory=dict)
    experiments: dict[str, SimpleNamespace] = field(default_factory=dict)
    versions: dict[str, SimpleNamespace] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def register(self, version: str) -> Candidate:
        """A version of two files, as a gate has fetched it."""
        place = self.folder / version
        place.mkdir()
        (place / "MLmodel").write_text(f"flavors: {{pytorch: {{number: {version}}}}}")
        self.versions[version] = SimpleNamespace(
            name=MODEL, version=version, run_id=f"run{version}", source=f"models:/m-{version}", tags={}
        )
        return self.candidate(version)

    def candidate(self, version: str) -> Candidate:
        """The version as it is now."""
        return Candidate(
            name=MODEL,
            version=version,
            run_id=self.versions[version].run_id,
            model_id=f"m-{version}",
            uri=f"models:/{MODEL}/{version}",
            digest=manifest_digest(self.folder / version),
        )


def free(what: str, write: bool) -> None:
    """Leave that is always given."""


@dataclass
class SmallClient:
    """What flataudit uses of ``MlflowClient``; ``leave(what, write)`` is asked before and after each request."""

    store: Store
    before: Callable[[str, bool], None] = free
    after: Callable[[str, bool], None] = free
    arguments: tuple[object, ...] = ()
    """Of the newest request."""

    def __post_init__(self) -> None:
        for name in dir(type(self)):
            if name.startswith(("get_", "set_", "log_", "create_", "delete_")):
                setattr(self, name, self._asking(name, getattr(self, name)))

    def _asking(self, name: str, request: Callable[..., object]) -> Callable[..., object]:
        def ask(*args: object, **kwargs: object) -> object:
            write = not name.startswith("get_")
            self.arguments = args
            self.before(name, write)
            answer = request(*args, **kwargs)
            self.after(name, write)
            return answer

        return ask

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return self.store.experiments.get(name)

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: dict | None = None) -> str:
        if name in self.store.experiments:
            raise MlflowException(f"Experiment(name={name}) already exists.", RESOURCE_ALREADY_EXISTS)
        made = SimpleNamespace(experiment_id=name, tags=dict(tags or {}), lifecycle_stage="active")
        self.store.experiments[name] = made
        return name

    def create_run(self, experiment_id: str, tags: dict | None = None) -> SimpleNamespace:
        run_id = f"r{len(self.store.runs)}"
        data = SimpleNamespace(params={}, tags=dict(tags or {}))
        self.store.runs[run_id] = SimpleNamespace(info=SimpleNamespace(run_id=run_id), data=data)
        return self.store.runs[run_id]

    def get_run(self, run_id: str) -> SimpleNamespace:
        data = self.store.runs[run_id].data
        copied = SimpleNamespace(params=dict(data.params), tags=dict(data.tags))
        return SimpleNamespace(info=self.store.runs[run_id].info, data=copied)

    def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
        self.get_run(run_id)

    def delete_run(self, run_id: str) -> None:
        self.store.runs[run_id].data.tags["deleted"] = "true"

    def log_param(self, run_id: str, key: str, value: str) -> None:
        params = self.store.runs[run_id].data.params
        if params.setdefault(key, value[:6000]) != value[:6000]:
            raise MlflowException(f"Changing param values is not allowed: {key!r}", INVALID_PARAMETER_VALUE)

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.store.runs[run_id].data.tags[key] = value

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        """Nobody reads it."""

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.get_model_version(name, version).tags[key] = value

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        if version not in self.store.versions:
            raise MlflowException(f"Model Version (version={version}) not found", RESOURCE_DOES_NOT_EXIST)
        return self.store.versions[version]

    def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
        if alias not in self.store.aliases:
            raise MlflowException(f"Registered model alias {alias} not found.", INVALID_PARAMETER_VALUE)
        return self.store.versions[self.store.aliases[alias]]

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.store.aliases[alias] = version

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        return str(self.store.folder / version)


class Lockstep:
    """Threads that go one step at a time, each when it is told to; a step ends before the next request or pause."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.waiting_for: str | None = None
        self.ended = False
        self.result: object = None
        self._doom: Crash | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        self._stopped.acquire()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            self.pause("start")
            self.result = work()
        except BaseException as error:  # noqa: BLE001  # a crash, or what the test looks at
            self.result = error
        self.ended, self.waiting_for = True, None
        self._stopped.release()

    def pause(self, what: str) -> None:
        """Called by the thread itself: wait to be told."""
        if self._doom is not None:
            raise self._doom
        self.waiting_for = what
        self._stopped.release()
        self._go.acquire()
        if self._doom is not None:
            raise self._doom

    def step(self) -> None:
        """Let it go until it pauses again, or ends."""
        if not self.ended:
            self._go.release()
            self._stopped.acquire()

    def crash(self) -> None:
        """It never gets any further."""
        self._doom = Crash()
        self.step()

    @property
    def mine(self) -> bool:
        """Whether this very thread is asking."""
        return threading.current_thread() is self._thread
