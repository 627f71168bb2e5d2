"""What was measured once is not measured again: a probe's readings of one candidate, kept under all they depend on.

The key holds the digest of the candidate's bytes and of the data, the probe with its version and parameters, the seed,
the budget, how the model is loaded and the versions of what does the arithmetic. A number that failed, that the budget
cut short or that a clock gave is never kept. Readings are kept as each probe ends, so that an interrupted audit goes on
where it stopped.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from flataudit import __version__
from flataudit.arrays import DAMAGED, read_arrays, write_arrays
from flataudit.evidence import Evidence, Examined, Outcome, canonical_digest
from flataudit.examination import libraries, make_probe, merged, spoken
from flataudit.specs import Job, Spec

__all__ = ["EvidenceStore", "store_folder"]

_SETTINGS = {
    *("task", "outputs", "output", "loss", "tokenizer"),
    *("seed", "budget", "device", "dtype", "batch_size", "trust"),
}
_KEPT_DAYS = 30
_SETTLED = (Outcome.MEASURED, Outcome.NOT_APPLICABLE)
_LABEL = "candidate"


def store_folder(environment: Mapping[str, str]) -> Path:
    """``$FLATAUDIT_CACHE``, else ``flataudit`` below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own = environment.get("FLATAUDIT_CACHE")
    if own:
        return Path(own)
    base = environment.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "flataudit"
    except RuntimeError:  # a user without a home, as in many containers
        return Path(tempfile.gettempdir()) / f"flataudit-{os.getuid()}"


@dataclass(frozen=True)
class EvidenceStore:
    """A folder of readings; writers may race, since an entry appears whole and is the same whoever wrote it."""

    folder: Path
    engine: str
    """What runs the probes and what it isolates from: evidence of another engine is not reused."""
    fresh: bool = False
    """Nothing kept is used; what is measured now is kept."""

    def kept(self, job: Job) -> tuple[Examined | None, tuple[Spec, ...]]:
        """What is known of this candidate, and the probes that are still to run."""
        found = {spec.use: None if self.fresh else self._read(job, spec) for spec in job.probes}
        parts = [one for one in found.values() if one is not None]
        return merged(job, parts) if parts else None, tuple(spec for spec in job.probes if found[spec.use] is None)

    def keep(self, job: Job, part: Examined) -> None:
        """Keep one probe's readings; a full or read-only disk costs the reuse and nothing else."""
        outcomes = {measurement.outcome for measurement in part.evidence.measurements}
        probes = {measurement.probe for measurement in part.evidence.measurements}
        spec = next((spec for spec in job.probes if {spec.use} == probes), None)
        hurried = any(m.details.get("stopped") == "budget" for m in part.evidence.measurements)
        if part.evidence.trust == "code_bearing":  # code beside the artifact may change, and its digest does not
            return
        if spec is None or not outcomes or not outcomes <= set(_SETTLED) or hurried or not _repeats(job, spec):
            return
        target = self._place(job, spec)
        staging = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            staging.mkdir(parents=True)
            (staging / "evidence.json").write_text(part.evidence.model_dump_json(), encoding="utf-8")
            write_arrays(staging / "arrays.npz", {_LABEL: part.arrays})
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)

    def forget(self, job: Job) -> None:
        """Remove what was kept of a candidate: its worker turned out not to be believed."""
        for spec in job.probes:
            if job.candidate.digest is not None:
                shutil.rmtree(self._place(job, spec), ignore_errors=True)

    def prune(self) -> None:
        """Remove what nobody has read for a month, and what an interrupted writer left."""
        limit = time.time() - _KEPT_DAYS * 86_400
        for entry in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime < limit:
                    shutil.rmtree(entry, ignore_errors=True)

    def _read(self, job: Job, spec: Spec) -> Examined | None:
        if not _repeats(job, spec):
            return None
        place = self._place(job, spec)
        try:
            evidence = Evidence.model_validate_json((place / "evidence.json").read_bytes())
            arrays = read_arrays(place / "arrays.npz").get(_LABEL, {})
            os.utime(place)
        except (*DAMAGED, ValidationError):
            return None
        if evidence.candidate.digest != job.candidate.digest:
            return None
        return Examined(evidence.model_copy(update={"candidate": job.candidate}), arrays)

    def _place(self, job: Job, spec: Spec) -> Path:
        settings = job.model_dump(mode="json", include=_SETTINGS)
        data: JsonValue = [[one.name, one.role, one.digest] for one in job.data]
        key = canonical_digest(
            [
                __version__,
                self.engine,
                job.candidate.digest,
                job.candidate.flavour,
                spoken(spec),
                data,
                settings,
                dict(libraries()),
            ]
        ).removeprefix("sha256:")
        return self.folder / key[:2] / key[2:]


def _repeats(job: Job, spec: Spec) -> bool:
    """Whether the same question has the same answer: bytes that are known, and no clock."""
    tokenizer = job.tokenizer
    unbound = tokenizer is not None and tokenizer.path is not None and tokenizer.digest is None
    if unbound or job.architecture is not None:  # files of the user's, whose bytes are in no digest
        return False
    return job.candidate.digest is not None and not getattr(make_probe(spec), "timed", False)
