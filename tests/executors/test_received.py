"""What a worker tried and was refused stands in its evidence, bounded; its own words about its isolation do not."""

from collections.abc import Callable

from flataudit.evidence import Examined
from flataudit.examination import failed_evidence
from flataudit.executors.isolation import isolation
from flataudit.executors.received import stamped
from flataudit.specs import Job


def evidence(make_job: Callable[..., Job]) -> Examined:
    found = failed_evidence(make_job("m"), "no", None).evidence
    return Examined(found.model_copy(update={"isolation": {"net": "enforced"}, "notes": ("read from a file",)}))


def test_attempts_become_notes_and_isolation_is_the_supervisors(make_job: Callable[..., Job]) -> None:
    one = stamped(evidence(make_job), isolation("env"), ["open a socket (socket), 3 times"])
    assert one.evidence.isolation == isolation("env")
    assert one.evidence.notes == (
        "read from a file",
        "the model tried to open a socket (socket), 3 times, and was refused",
    )


def test_many_attempts_are_cut(make_job: Callable[..., Job]) -> None:
    notes = stamped(evidence(make_job), isolation(), [f"do {n}" for n in range(50)]).evidence.notes
    assert len(notes) == 22
    assert notes[-1] == "the model tried 30 other things, and was refused"
