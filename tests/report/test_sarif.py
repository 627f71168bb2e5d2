import json
from types import ModuleType
from typing import Any

import pytest

from flataudit.audit import AuditRecord
from flataudit.evidence import Array
from flataudit.report.sarif import SarifReport
from flataudit.testing.reports import HOSTILE, check_renderer

Arrays = dict[str, dict[str, Array]]
LEVELS = {"none", "note", "warning", "error"}


def drawn(record: AuditRecord, arrays: Arrays) -> dict[str, Any]:
    return json.loads(SarifReport().render(record, arrays))


def test_it_conforms() -> None:
    check_renderer(SarifReport())


def test_every_audit_has_what_the_schema_requires(audited: tuple[AuditRecord, Arrays]) -> None:
    """sarif-schema-2.1.0: version and runs; a tool's driver has a name; a result has a message, whose rule exists."""
    document = drawn(*audited)
    assert document["version"] == "2.1.0" and document["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "flataudit"
    assert len({rule["id"] for rule in rules}) == len(rules)
    for result in run["results"]:
        assert result["message"]["text"] and result["level"] in LEVELS
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] == "flataudit.yaml"
        assert all(len(known) == 64 for known in result["partialFingerprints"].values())


def test_what_did_not_pass_is_a_result_and_nothing_else_is(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    verdicts = [verdict for standing in record.decision.standings for verdict in standing.verdicts]
    found = drawn(record, arrays)["runs"][0]["results"]
    open_ = [verdict for verdict in verdicts if verdict.verdict != "pass"]
    assert len(found) == len(open_) and 0 < len(open_) < len(verdicts)
    for verdict, result in zip(open_, found, strict=True):
        assert result["level"] == ("error" if verdict.verdict == "fail" else "warning")
        assert verdict.criterion in result["message"]["text"]


def test_a_waived_criterion_is_suppressed_with_its_reason(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    standings = list(record.decision.standings)
    index = next(i for i, one in enumerate(standings) if any(v.verdict == "fail" for v in one.verdicts))
    waived = tuple(v.model_copy(update={"waived": f"waived by {HOSTILE}"}) for v in standings[index].verdicts)
    standings[index] = standings[index].model_copy(update={"verdicts": waived})
    decision = record.decision.model_copy(update={"standings": tuple(standings)})
    found = drawn(record.model_copy(update={"decision": decision}), arrays)["runs"][0]["results"]
    (reason,) = {one["suppressions"][0]["justification"] for one in found if "suppressions" in one}
    assert "\u202e" not in reason and reason.startswith("waived by <script>")
    assert all(one["level"] == "note" for one in found if "suppressions" in one)


@pytest.mark.parametrize("kind", ["audit", "score"])
def test_limits_and_failed_measurements_are_results(audits: ModuleType, kind: str) -> None:
    results = drawn(*audits.everything()[kind])["runs"][0]["results"]
    assert results and all(one["level"] in ("error", "warning") for one in results)


def test_a_fingerprint_stays_while_the_model_and_its_bytes_do(audits: ModuleType) -> None:
    record, arrays = audits.rich_gate()
    first, second = drawn(record, arrays), drawn(record.model_copy(update={"id": "another"}), arrays)
    known = [[one["partialFingerprints"] for one in each["runs"][0]["results"]] for each in (first, second)]
    assert known[0] == known[1] and len({json.dumps(one) for one in known[0]}) == len(known[0])
