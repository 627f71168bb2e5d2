"""A candidate's code is given inputs and no labels; what it answers is judged here, and nothing else that it says."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flataudit.evidence import Candidate, Examined, Outcome
from flataudit.executors import process
from flataudit.executors.process import ProcessExecutor
from flataudit.executors.questions import asked, questions
from flataudit.executors.steps import FOUND_LATE, JUDGED, runs_code, split
from flataudit.specs import Budget, DataSpec, Job, Spec

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")
STRANGE = Path(__file__).with_name("strange_model.py")
NOISE = Spec(use="input_noise", params={"draws": 1})
Told = list[Examined | None]


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A trusted job on 100 examples, in a worker whose model is named by the candidate."""
    monkeypatch.setattr(process, "worker_command", lambda: (sys.executable, "-I", str(STRANGE)))
    monkeypatch.setattr(process, "warm_start", lambda *_: None)
    inputs = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    labels = (inputs[:, 0] + inputs[:, 1] < 0).astype(np.int64)
    np.savez(tmp_path / "validation.npz", x=inputs, y=labels)
    (tmp_path / "model").mkdir()
    source = Spec(use="npz", params={"path": str(tmp_path / "validation.npz")})

    def make(name: str, *probes: Spec, seconds: float = 30.0, passes: float = 300.0) -> Job:
        return Job(
            candidate=Candidate(name=name, version="1", uri="models:/m/1", flavour="pytorch", digest="sha256:0"),
            artifact=str(tmp_path / "model"),
            probes=probes or (Spec(use="accuracy"), NOISE),
            data=(DataSpec(name="validation", role="validation", source=source),),
            task="binary",
            budget=Budget(seconds=seconds, passes=passes),
            trust=True,
        )

    return make


def examined(job: Job, told: Told | None = None, **params: object) -> Examined:
    said: Told = [] if told is None else told
    executor = ProcessExecutor(**{"grace": 10.0, **params})  # type: ignore[arg-type]
    (one,) = executor.map([job], lambda *note: None, lambda _, part: said.append(part))
    return one


def truth(job: Job) -> float:
    """The accuracy of an honest answer."""
    with np.load(str(job.data[0].source.params["path"])) as data:
        return float(np.mean((data["x"][:, 0] < 0) == data["y"]))


# ── Who is asked, and what ────────────────────────────────────────────────────────────────────────


def test_jobs_are_cut_by_what_their_probes_ask(make_job: Callable[..., Job]) -> None:
    specs = tuple(Spec(use=name) for name in ("footprint", "accuracy", "weight_noise", "corruption"))
    first, second = split(make_job("m", *specs))
    assert [spec.use for spec in first.probes] == ["accuracy", "corruption"]
    assert [spec.use for spec in second.probes] == ["footprint", "weight_noise"]


def test_only_a_trusted_candidate_with_code_is_asked(make_job: Callable[..., Job], tmp_path: Path) -> None:
    job = make_job("m")
    (tmp_path / "model" / "MLmodel").write_text("flavors:\n  pytorch: {model_data: data}\n")
    assert not runs_code(job)
    assert runs_code(
        job.model_copy(update={"candidate": job.candidate.model_copy(update={"flavour": "python_function"})})
    )
    (tmp_path / "model" / "model.pkl").write_bytes(b"\x80\x04cos\nsystem\n.")
    assert runs_code(job)
    assert not runs_code(job.model_copy(update={"trust": False}))


@given(
    arrays.arrays(
        st.sampled_from(["<f4", "<f8", ">i2", "|u1", "|b1"]), arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)
    )
)
def test_numbers_arrive_bit_for_bit(inputs: np.ndarray) -> None:
    ((nonce, found),) = questions(io.BytesIO(b"".join(asked("n", inputs))))
    assert nonce == "n" and found.dtype == inputs.dtype and found.shape == inputs.shape
    assert found.tobytes() == inputs.tobytes() and found.flags.writeable


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_texts_arrive(texts: list[str]) -> None:
    inputs = np.array(texts)
    (_, found), (_, again) = questions(io.BytesIO(b"".join((*asked("n", inputs), *asked("o", inputs[:1])))))
    assert found.tolist() == inputs.tolist() and again.tolist() == inputs[:1].tolist()


def test_half_a_question_is_none() -> None:
    assert list(questions(io.BytesIO(b"".join(asked("n", np.zeros(4)))[:-1]))) == []


# ── What is believed ──────────────────────────────────────────────────────────────────────────────


def test_answers_are_judged_here(make_job: Callable[..., Job]) -> None:
    told: Told = []
    job = make_job("honest", Spec(use="footprint"), Spec(use="accuracy"), NOISE)
    one = examined(job, told)
    accuracy = one.evidence["validation_accuracy"]
    assert accuracy.estimate == truth(job) and 0.6 < truth(job) < 0.9
    assert np.asarray(one.arrays["validation_accuracy"].view()).mean() == truth(job)
    assert one.evidence.trust == "code_bearing" and one.evidence.protocol.dtype == "float32"
    assert one.evidence.notes == ("its own process says: read strangely", JUDGED)
    assert one.evidence.isolation["mem"] == "enforced"
    assert list(dict.fromkeys(m.probe for m in one.evidence.measurements)) == ["accuracy", "input_noise"]
    assert [{m.probe for m in part.evidence.measurements} for part in told if part] == [{"accuracy"}, {"input_noise"}]


def test_the_second_worker_speaks_of_its_own_probes_alone(make_job: Callable[..., Job]) -> None:
    """Its model claims an accuracy of 1 in every name, and arrays that stand for other probes' answers."""
    one = examined(make_job("honest", Spec(use="footprint")))
    assert one.evidence.measurements == () and one.arrays.keys() == {"validation_accuracy"}


def test_places_tell_no_labels(make_job: Callable[..., Job]) -> None:
    """Of a set that is sorted by its labels, a model that counts the examples would know them all."""
    job = make_job("by_place", Spec(use="accuracy"))
    path = str(job.data[0].source.params["path"])
    with np.load(path) as data:
        order = np.argsort(-data["y"], kind="stable")
        x, y = data["x"][order], data["y"][order]
    np.savez(path, x=x, y=y)
    counted = np.mean(y == (np.arange(len(y)) < len(y) / 2))
    assert counted > 0.9
    assert examined(job).evidence["validation_accuracy"].estimate == pytest.approx(0.5, abs=0.2)


def test_code_that_shows_itself_late_is_asked_without_labels(make_job: Callable[..., Job], tmp_path: Path) -> None:
    told: Told = []
    job = make_job("shows_code_late")
    (tmp_path / "model" / "MLmodel").write_text("flavors:\n  pytorch: {model_data: data}\n")
    assert not runs_code(job)
    one = examined(job, told)
    assert one.evidence["validation_accuracy"].estimate == truth(job)
    assert one.evidence.notes == ("its own process says: read strangely", JUDGED, FOUND_LATE)
    assert None in told and all(part and JUDGED in part.evidence.notes for part in told[told.index(None) + 1 :])
    untrusted = examined(job.model_copy(update={"trust": False}))
    assert {m.outcome for m in untrusted.evidence.measurements} == {Outcome.FAILED}
    assert "code of its own that no look" in str(untrusted.evidence["validation_accuracy"].reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("exchanges", "got class 0 in column 1, class 1 in column 0"),
        ("few_rows", "expected float64 log-probabilities of every class of 64 examples, got (63, 2)"),
        ("other_columns", "expected as many bytes as values"),
        ("not_a_number", "cannot be loaded: expected finite answers, got 100% NaN"),
        ("another_draw", "expected the same answer twice"),
        ("neighbours", "do not depend on the other examples"),
        ("order", "do not depend on the order"),
        ("counts", "do not depend on the calls before"),
        ("turns_at_the_end", "changed while it was measured"),
        ("forges_evidence", "the nonce of the request"),
        ("answers_before", "the nonce of the request"),
        ("huge_frame", "expected"),
        ("babbles", "a header of at most"),
    ],
)
def test_what_is_no_answer_gives_no_number(make_job: Callable[..., Job], name: str, reason: str) -> None:
    one = examined(make_job(name, Spec(use="accuracy"), Spec(use="footprint")))
    assert {m.outcome for m in one.evidence.measurements} == {Outcome.FAILED}
    assert {m.probe for m in one.evidence.measurements} == {"accuracy", "footprint"}
    assert all(reason in str(m.reason) for m in one.evidence.measurements), one.evidence.measurements
    assert one.arrays == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not_a_number_later", "expected finite answers"),
        ("far_apart", "expected finite answers"),
        ("raises", "ValueError: not these"),
        ("leaves", "stopped by SystemExit: I go"),
    ],
)
def test_a_model_that_fails_on_some_inputs_fails_there(make_job: Callable[..., Job], name: str, reason: str) -> None:
    one = examined(make_job(name))
    assert one.evidence.trust == "code_bearing"
    assert all(m.outcome is Outcome.FAILED and reason in str(m.reason) for m in one.evidence.measurements)


def test_what_was_found_before_it_died_is_kept(make_job: Callable[..., Job]) -> None:
    job = make_job("dies", Spec(use="accuracy"), NOISE, Spec(use="footprint"))
    told: Told = []
    one = examined(job, told)
    assert one.evidence["validation_accuracy"].estimate == truth(job)
    assert "exit with code 3" in str(one.evidence["noise_accuracy"].reason)
    assert "exit with code 3" in str(one.evidence["latency_p50"].reason)
    assert len(told) == 1


def test_no_answer_is_over_budget(make_job: Callable[..., Job]) -> None:
    one = examined(make_job("never", seconds=3.0), grace=1.0)
    assert {m.outcome for m in one.evidence.measurements} == {Outcome.OVER_BUDGET}


def test_the_second_step_has_what_the_first_left(make_job: Callable[..., Job]) -> None:
    one = examined(make_job("honest", NOISE, Spec(use="footprint"), passes=1.0))
    assert one.evidence["noise_accuracy"].outcome is Outcome.MEASURED
    latency = one.evidence["latency_p50"]
    assert latency.outcome is Outcome.OVER_BUDGET and "was used up before" in str(latency.reason)


def test_data_that_changed_is_told(make_job: Callable[..., Job]) -> None:
    job = make_job("honest")
    data = (job.data[0].model_copy(update={"digest": "sha256:before"}),)
    one = examined(job.model_copy(update={"data": data}))
    assert "with digest sha256:before" in str(one.evidence["validation_accuracy"].reason)


def test_an_interrupt_ends_a_model_that_is_asked(make_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(make_job("waits", seconds=100).model_dump_json())
    (tmp_path / "tmp").mkdir()
    script = Path(__file__).with_name("interrupted_audit.py")
    audit = subprocess.Popen(
        [sys.executable, str(script), str(STRANGE), str(tmp_path)],
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
    )
    try:
        assert _wait_until(lambda: len(_marks(tmp_path)) >= 2)
        audit.send_signal(signal.SIGINT)
        _, printed = audit.communicate(timeout=20)
    finally:
        audit.kill()
    assert b"KeyboardInterrupt" in printed
    assert not any(Path(f"/proc/{pid}").exists() for pid in _marks(tmp_path))
    assert list((tmp_path / "tmp").iterdir()) == []


def _marks(folder: Path) -> list[str]:
    return [path.stem for path in (folder / "model").glob("*.pid")]


def _wait_until(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()
