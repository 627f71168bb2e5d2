import json
from types import ModuleType

import pytest

from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report.json import JsonReport

Arrays = dict[str, dict[str, Array]]


def test_it_is_ascii_and_strict_json_of_its_kind(audited: tuple[AuditRecord, Arrays]) -> None:
    record, arrays = audited
    text = JsonReport().render(record, arrays)
    assert text.isascii() and text.replace("\n", "").isprintable()
    document = json.loads(text, parse_constant=pytest.fail)
    assert document["schema"] == f"flataudit/{record.kind}/1"
    assert document["audit"] == record.id and document["dry_run"] == record.dry_run
    assert [c["label"] for c in document["candidates"]] == [e.candidate.label for e in record.evidences]
    for key, kinds in (("decision", {"gate"}), ("alarms", {"audit"}), ("champion", {"gate", "audit"})):
        assert (key in document) == (record.kind in kinds)


def test_a_gate_has_the_names_of_the_schema(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    document = json.loads(JsonReport().render(record, arrays))
    assert document["decision"] == "promote" and document["promoted"] == "8" and document["sequence"] is None
    assert document["champion"] == {"version": "7", "digest": "sha256:" + f"{7:064x}"}
    assert document["policy_digest"] == record.policy_digest
    assert document["receipt"]["promoted"] == "8" and audits.HOSTILE in document["receipt"]["notes"][0]
    by_version = {c["version"]: c for c in document["candidates"]}
    assert by_version["7"]["verdict"] is None and by_version["7"]["role"] == "champion"
    assert by_version["8"]["verdict"] == "promote" and by_version["8"]["verdicts"][0]["verdict"] == "pass"
    assert by_version["14"]["score"] is None
    score = record.evidence("v8")["score"]
    assert by_version["8"]["score"] == {"value": score.estimate, "lo": score.interval[0], "hi": score.interval[1]}


def test_measurements_keep_every_digit_and_say_what_is_unknown(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    document = json.loads(JsonReport().render(record, arrays))
    for candidate, evidence in zip(document["candidates"], record.evidences, strict=True):
        for told, m in zip(candidate["measurements"], evidence.measurements, strict=True):
            assert (told["metric"], told["estimate"], told["reason"]) == (m.metric, m.estimate, m.reason)
            assert (told["lo"], told["hi"]) == (m.limits or (None, None))
            assert told["cost"]["passes"] == pytest.approx(m.cost.passes)
    sharpness = next(m for m in document["candidates"][0]["measurements"] if m["metric"] == "sharpness_l2")
    assert sharpness["standard_error"] is None and sharpness["lo"] is None
