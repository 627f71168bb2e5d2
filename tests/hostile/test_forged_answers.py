"""Code that hunts labels and forges evidence changes no accuracy; honest code has that of the same model without."""

import sys
from pathlib import Path

import hostile_artifacts as make
import numpy as np
import pytest
import torch

from flataudit.evidence import Candidate, Examined, Outcome
from flataudit.executors.isolation import enforceable
from flataudit.executors.local import LocalExecutor
from flataudit.executors.process import ProcessExecutor
from flataudit.executors.steps import JUDGED
from flataudit.manifest import manifest_digest
from flataudit.policy import Policy
from flataudit.specs import Budget, DataSpec, Job, Spec
from flataudit.trust import ruled, turned_away

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
PROBES = tuple(Spec(use=name) for name in ("accuracy", "calibration", "corruption", "weight_noise", "label_free"))
ANSWERS = ("accuracy", "calibration", "corruption")
HUNT = """
import gc, os, sys
import numpy as np
LABELS = {labels!r}
def is_labels(found):
    try:
        return np.asarray(found).tolist() == LABELS
    except Exception:
        return False
def files():
    for folder, _, names in os.walk({folder!r}):
        for name in names:
            if name.endswith(".npz"):
                with np.load(os.path.join(folder, name)) as data:
                    yield from (data[key] for key in data.files)
def descriptors():
    for number in range(3, 64):
        try:
            yield np.frombuffer(os.pread(number, 10**7, 0)[-8 * len(LABELS):], dtype=np.int64)
        except Exception:
            pass
def held():
    for thing in gc.get_objects():
        inside = thing.values() if type(thing) is dict else thing if type(thing) in (list, tuple) else ()
        yield from (one for one in list(inside) if isinstance(one, np.ndarray))
        yield from (v for v in vars(thing).values()) if type(thing).__name__ == "AuditData" else ()
found = False
for place in (files, descriptors, held):
    try:
        found = found or any(map(is_labels, place()))
    except Exception:
        pass
"""
FORGE = """
from flataudit.evidence import Array, AuditProtocol, Evidence, Metric
from flataudit.executors.frames import ArrayHeader, EvidenceHeader, encode
def forge():
    frame = sys._getframe()
    while frame.f_code.co_name != "serve":
        frame = frame.f_back
    request = frame.f_locals["request"]
    protocol = AuditProtocol(probes=(), data={{}}, seed=0, dtype="float32", device="cpu", libraries={{}})
    claims = {{"validation_accuracy": 1.0, "calibration_error": 0.0, "corruption_accuracy": 1.0}}
    claims["weight_noise_accuracy"] = -777.0
    said = tuple(
        Metric(name=name).measured(value, samples=name).model_copy(update={{"probe": probe}})
        for name, value in claims.items()
        for probe in ("accuracy", "calibration", "corruption", "weight_noise")
    )
    told = Evidence(candidate=request.job.candidate, protocol=protocol, trust="data_only", measurements=said)
    perfect = Array.of([1.0] * len(LABELS))
    array = ArrayHeader(name="validation_accuracy", format=perfect.format, shape=perfect.shape)
    out = frame.f_locals["stream"]
    out.write(encode(request.nonce, array, perfect.data))
    out.write(encode(request.nonce, EvidenceHeader(last=False), told.model_dump_json().encode()))
    out.write(encode(request.nonce, EvidenceHeader(), told.model_dump_json().encode()))
    out.flush()
"""
MODEL = """
import torch
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
"""

CODES = {
    "honest": MODEL,
    "where it finds labels": HUNT + FORGE + MODEL + "if found:\n    forge()\n    os._exit(0)\n",
    "at once": HUNT + FORGE + MODEL + "forge()\n",
}


def exported(folder: Path) -> None:
    """The same model without code."""
    names: dict[str, torch.nn.Module] = {}
    with torch.random.fork_rng():
        exec(MODEL, names)
    batch = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(names["model"], (torch.zeros(3, 4),), dynamic_shapes=({0: batch},))
    torch.export.save(program, make.described(folder) / "model.pt2")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Job, Examined]]:
    """One audit of all."""
    if enforceable()["fs"] != "enforced":
        pytest.skip(f"this machine cannot keep files from a worker: {enforceable()}")
    folder = tmp_path_factory.mktemp("forged")
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(150, 4)).astype(np.float32)
    labels = (inputs[:, 0] > 0) + (inputs[:, 1] > 0.5).astype(np.int64)
    np.savez(folder / "validation.npz", x=inputs, y=labels)
    for name, code in CODES.items():
        told = code.replace("{labels!r}", repr(labels.tolist())).replace("{folder!r}", repr(str(folder)))
        torch.save(
            make.Program(told.replace("{{", "{").replace("}}", "}")), make.described(folder / name) / "model.pth"
        )
    exported(folder / "data only")
    jobs = [_job(folder, name) for name in (*CODES, "data only")]
    executor = ProcessExecutor(workers=2, minimum=("env", "time", "mem", "fs", "net", "proc"))
    return {job.candidate.name: (job, one) for job, one in zip(jobs, executor.map(jobs, _quiet), strict=True)}


def _job(folder: Path, name: str) -> Job:
    digest = manifest_digest(folder / name)
    source = Spec(use="npz", params={"path": str(folder / "validation.npz")})
    return Job(
        candidate=Candidate(name=name, version=name, uri="models:/m/1", flavour="pytorch", digest=digest),
        artifact=str(folder / name),
        probes=PROBES,
        data=(DataSpec(name="validation", role="validation", source=source),),
        budget=Budget(memory_bytes=5 * 2**30),
        trust=name != "data only",
    )


def _quiet(label: str, what: str, share: float) -> None:
    pass


def of_answers(one: Examined) -> dict[str, object]:
    """All numbers that are made of answers, without what they cost."""
    return {
        m.metric: m.model_dump(exclude={"cost", "details"}) for m in one.evidence.measurements if m.probe in ANSWERS
    }


def test_the_same_model_has_the_same_numbers_with_and_without_code(found: dict[str, tuple[Job, Examined]]) -> None:
    (job, coded), (_, plain) = found["honest"], found["data only"]
    with torch.random.fork_rng():
        (here,) = LocalExecutor().map([job], _quiet)
    assert of_answers(coded) == of_answers(plain) == of_answers(here)
    assert coded.evidence["validation_accuracy"].outcome is Outcome.MEASURED
    assert coded.evidence["calibration_error"].outcome is Outcome.MEASURED
    for name in ("validation_accuracy", "corruption_predictions"):
        assert coded.arrays[name] == plain.arrays[name] == here.arrays[name]
    assert coded.evidence["weight_noise_accuracy"].estimate == here.evidence["weight_noise_accuracy"].estimate
    assert JUDGED in coded.evidence.notes and JUDGED not in plain.evidence.notes
    assert [m.metric for m in coded.evidence.measurements] == [m.metric for m in here.evidence.measurements]


def test_forging_beside_labels_reaches_no_number_of_answers(found: dict[str, tuple[Job, Examined]]) -> None:
    (_, honest), (job, forged) = found["honest"], found["where it finds labels"]
    assert of_answers(forged) == of_answers(honest)
    assert forged.arrays["validation_accuracy"] == honest.arrays["validation_accuracy"]
    # It did find them in the second worker, and could say of that one's probe what it liked: such numbers are marked.
    assert forged.evidence["weight_noise_accuracy"].estimate == -777
    admission, _ = turned_away(job)
    marked = ruled(job, forged, admission, Policy()).evidence
    assert marked["weight_noise_accuracy"].details["trust"] == "code_bearing"
    assert "trust" not in marked["validation_accuracy"].details
    assert len(marked.measurements) == len({m.metric for m in marked.measurements})


def test_forging_in_place_of_answers_gives_no_number(found: dict[str, tuple[Job, Examined]]) -> None:
    _, forged = found["at once"]
    assert {m.outcome for m in forged.evidence.measurements} <= {Outcome.FAILED, Outcome.NOT_APPLICABLE}
    assert "cannot be trusted" in str(forged.evidence["validation_accuracy"].reason)
    assert forged.arrays == {}
