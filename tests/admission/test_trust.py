"""The parent's word on trust: who runs, whose numbers are marked, and that a worker cannot talk its way out."""

from pathlib import Path

import artifacts as make
import pytest

from flataudit.admission.examining import admit
from flataudit.attestation.keys import generate
from flataudit.attestation.trustees import Granted, TrustedSigner
from flataudit.audit import AuditPlan
from flataudit.config import load_config, parse_config
from flataudit.errors import ConfigurationError
from flataudit.evidence import Admission, AuditProtocol, Candidate, Evidence, Examined, Finding, Metric, Outcome
from flataudit.policy import Policy
from flataudit.specs import DataSpec, Job, Spec
from flataudit.trust import ruled, turned_away

ACCURACY, TRACE = Metric(name="validation_accuracy"), Metric(name="hessian_trace")
DIGEST = "sha256:" + "ab" * 32
FOUND = Finding(kind="code", path="data/model.pth", what="a pickle", detail="names os.system")
PROTOCOL = AuditProtocol(probes=(), data={}, seed=0, dtype="float32", device="cpu", libraries={})


def job(folder: Path, flavour: str = "pytorch", **more: object) -> Job:
    return Job(
        candidate=Candidate(name="m", version="1", uri="models:/m/1", flavour=flavour, digest=DIGEST),
        artifact=str(folder),
        probes=(Spec(use="accuracy"), Spec(use="hessian_trace")),
        data=(DataSpec(name="validation", role="validation", source=Spec(use="npz", params={"path": "x.npz"})),),
        **more,  # type: ignore[arg-type]
    )


def said(one: Job, trust: str) -> Examined:
    """What a worker says."""
    numbers = (
        ACCURACY.measured(0.9).model_copy(update={"probe": "accuracy"}),
        TRACE.measured(1.5).model_copy(update={"probe": "hessian_trace"}),
    )
    forged = Admission.of([])
    return Examined(
        Evidence(candidate=one.candidate, protocol=PROTOCOL, trust=trust, measurements=numbers, admission=forged)
    )


def test_code_runs_for_those_who_are_trusted_alone(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    (tmp_path / "m/data/model.pth").write_bytes(make.pickled(print))
    admission, away = turned_away(job(tmp_path / "m"))
    assert admission.verdict == "carries code" and away is not None and away.evidence.admission == admission
    told = {m.reason for m in away.evidence.measurements}
    assert all(
        "a format that is data only, got data/model.pth: a pickle (names builtins.print)" in str(r) for r in told
    )
    assert {m.outcome for m in away.evidence.measurements} == {Outcome.FAILED}
    assert turned_away(job(tmp_path / "m", trust=True)) == (admission, None)
    assert turned_away(job(tmp_path / "m", flavour="prophet")) == (admission, None)


def test_nobody_runs_what_is_refused(tmp_path: Path) -> None:
    make.described(tmp_path / "m", "flavors: {pytorch: {model_data: ../x}}")
    admission, away = turned_away(job(tmp_path / "m", trust=True))
    assert admission.verdict == "refused" and away is not None
    assert "a path that goes up" in str(away.evidence.measurements[0].reason)


def test_data_goes_on(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    assert turned_away(job(tmp_path / "m")) == (Admission.of([]), None)


def test_a_worker_cannot_say_that_no_code_ran(tmp_path: Path) -> None:
    one = job(tmp_path)
    found = ruled(one, said(one, "data_only"), Admission.of([FOUND]), Policy()).evidence
    assert found.trust == "code_bearing" and found.admission == Admission.of([FOUND])
    assert found["hessian_trace"].details == {"trust": "code_bearing"} and found["hessian_trace"].estimate == 1.5
    assert found["validation_accuracy"].details == {}


def test_what_the_worker_found_counts_too(tmp_path: Path) -> None:
    one = job(tmp_path)
    for trust, marked in (("code_bearing", {"trust": "code_bearing"}), ("data_only", {})):
        found = ruled(one, said(one, trust), Admission.of([]), Policy()).evidence
        assert found.trust == trust and found["hessian_trace"].details == marked


def test_a_policy_that_takes_no_such_number(tmp_path: Path) -> None:
    one, policy = job(tmp_path), Policy(code_bearing_parameters="refuse")
    found = ruled(one, said(one, "data_only"), Admission.of([FOUND]), policy).evidence
    assert found["hessian_trace"].outcome is Outcome.FAILED and found["hessian_trace"].estimate is None
    assert found["validation_accuracy"].estimate == 0.9
    plain = ruled(one, said(one, "data_only"), Admission.of([]), policy).evidence
    assert plain["hessian_trace"].estimate == 1.5


def test_a_failure_to_load_ran_nothing(tmp_path: Path) -> None:
    one = job(tmp_path)
    failed = Evidence(
        candidate=one.candidate, protocol=PROTOCOL, measurements=(ACCURACY.missing(Outcome.FAILED, "no"),)
    )
    assert ruled(one, Examined(failed), Admission.of([FOUND]), Policy()).evidence.trust == "unknown"


POLICY = "model: m\ndata: {validation: {use: npz, path: v.npz}}\ntrust: %s\n"


@pytest.mark.parametrize(
    ("trust", "first", "second"),
    [
        ("true", True, True),
        ("false", False, False),
        (f"[{DIGEST}]", True, False),
        ("['2']", False, True),
        ("[v2]", False, True),
        (f"[{{digest: '{DIGEST}'}}]", True, False),
        ("[{version: 2}, {version: 3}]", False, True),
        ("[{registry: 'https://a.example'}]", True, True),
        ("[{registry: 'https://a.example.evil'}]", False, False),
        ("[]", False, False),
    ],
)
def test_some_may_be_trusted(trust: str, first: bool, second: bool, tmp_path: Path) -> None:
    plan: AuditPlan = parse_config(POLICY % trust).plan()
    ours = job(tmp_path).candidate
    other = ours.model_copy(update={"version": "2", "digest": "sha256:" + "cd" * 32})
    leaves = [plan.leave(one, registry="https://a.example/") for one in (ours, other)]
    assert [leave.by is not None for leave in leaves] == [first, second]
    assert plan.job(ours, tmp_path, trust=first).trust is first and not plan.job(ours, tmp_path).trust
    unfetched = Candidate(name="m", uri="runs:/x")
    assert (plan.leave(unfetched).by is not None) is (trust == "true")
    assert AuditPlan.model_validate_json(plan.model_dump_json()) == plan


def test_the_evidence_names_the_entry(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    (tmp_path / "m/data/model.pth").write_bytes(make.pickled(print))
    leave = Granted(f"digest {DIGEST}")
    admission, away = turned_away(job(tmp_path / "m", trust=True), leave)
    assert away is None and admission.verdict == "carries code"
    assert admission.listed("note") == f"trust: its own code may run (digest {DIGEST})"
    one = job(tmp_path)
    assert ruled(one, said(one, "data_only"), admission, Policy()).evidence.admission == admission


def test_an_approval_that_does_not_count_is_told(tmp_path: Path) -> None:
    make.described(tmp_path / "m")
    (tmp_path / "m/data/model.pth").write_bytes(make.pickled(print))
    admission, away = turned_away(job(tmp_path / "m"), Granted(refused=("a.dsse.json: expired at 2026",)))
    assert away is not None and "approval a.dsse.json: expired at 2026" in str(away.evidence.measurements[0].reason)
    assert admission.listed("note") == ""


@pytest.mark.parametrize(
    "trust",
    [
        *("maybe so", "[sha256:abc]", "['*']", "[fraud]", "[{registry: good.example}]", "[{version: -1}]"),
        *("[{registry: 'https://a', also: b}]", "[{digest: 'sha256:ab'}]", "[{owner: me}]", "[[1]]", "{version: 1}"),
        *("1", "8", "'yes'", "'true'", "1.0", "", f"[{{digest: '{DIGEST}', registry: 'https://a'}}]"),
    ],
)
def test_trust_in_other_words(trust: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'trust.*line 3 of flataudit.yaml"):
        parse_config(POLICY % trust)


def test_a_signer_is_looked_for_when_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "flataudit.yaml").write_text(POLICY % "[{signer: ada.pub}]")
    with pytest.raises(ConfigurationError, match=r"public key.*line 3 of .*flataudit.yaml.*no such file") as caught:
        load_config(tmp_path / "flataudit.yaml")
    assert caught.value.exit_code == 2
    (tmp_path / "ada.pub").mkdir()
    with pytest.raises(ConfigurationError, match=r"line 3 of .*flataudit.yaml, got a folder"):
        load_config(tmp_path / "flataudit.yaml")
    (tmp_path / "ada.pub").rmdir()
    generate(tmp_path / "ada.key", None)
    plan = load_config(tmp_path / "flataudit.yaml").plan()
    assert plan.trust == (TrustedSigner(signer=str(tmp_path / "ada.pub"), approvals=str(tmp_path / "approvals")),)


def test_the_registry_beside_which_the_audit_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default, ``sqlite:///mlflow.db``, is a path of the folder in which it is spoken to."""
    (tmp_path / "flataudit.yaml").write_text(POLICY % "[{registry: 'sqlite:///mlflow.db'}]")
    plan, one = load_config(tmp_path / "flataudit.yaml").plan(), job(tmp_path).candidate
    monkeypatch.chdir(tmp_path)
    assert plan.leave(one, registry="sqlite:///mlflow.db").by == f"registry sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert plan.leave(one, registry="sqlite:///mlflow.db").by is None


def test_the_default_is_that_of_no_code(tmp_path: Path) -> None:
    assert Admission.of([]).verdict == "no code found"
    assert admit(make.described(tmp_path / "m")).findings == ()
