"""The account of decisions: what its entries imply, and that no change of it goes unnoticed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flataudit.journal import Intent, Journal, state_folder
from flataudit.ledger import AliasTarget, History, Ledger, LedgerDraft, LedgerEntry, operation_id

ONE, TWO, THREE = (AliasTarget(version=v, digest=f"sha256:{v}", run_id=f"r{v}") for v in "123")


def draft(kind, expected=None, target=None, *, audit="a", alias="champion", **more):
    return LedgerDraft(
        model="m",
        alias=alias,
        kind=kind,
        audit=audit,
        operation=operation_id("m", alias, expected=expected, target=target, decision=audit),
        created="2026-01-01T00:00:00+00:00",
        actor="a test",
        expected=expected,
        target=target,
        **more,
    )


def ledger(*steps):
    """``(kind, expected, target, ending)``, or with an alias as a fifth."""
    made = Ledger(model="m")
    for number, (kind, expected, target, ending, *alias) in enumerate(steps, start=1):
        named = {"alias": alias[0]} if alias else {}
        entry = made.followed_by(draft(kind, expected, target, audit=str(number), **named))
        endings = dict(made.endings) | ({number: ending} if ending else {})
        made = Ledger(model="m", entries=(*made.entries, entry), endings=endings)
    return made


# ── What the champion is ──


@pytest.mark.parametrize(
    ("steps", "champions"),
    [
        ([], ""),
        ([("reject", ONE, None, None)], "1"),
        ([("promote", ONE, TWO, "done")], "12"),
        ([("promote", ONE, TWO, None)], "1"),
        ([("promote", ONE, TWO, "conflict")], "1"),
        ([("promote", ONE, TWO, "tampered"), ("promote", ONE, THREE, "done")], "13"),
        ([("promote", ONE, TWO, "done"), ("promote", TWO, THREE, "done")], "123"),
        ([("promote", ONE, TWO, "done"), ("promote", TWO, ONE, "done")], "121"),
        ([("promote", ONE, TWO, "done"), ("rollback", TWO, ONE, "done")], "1"),
        ([("promote", ONE, TWO, "done"), ("rollback", TWO, ONE, "tampered")], "12"),
        ([("promote", ONE, TWO, "done"), ("promote", TWO, THREE, "done"), ("rollback", THREE, TWO, "done")], "12"),
        ([("promote", ONE, TWO, "done"), ("drift", TWO, THREE, None)], "123"),
        ([("promote", ONE, TWO, "done"), ("drift", TWO, ONE, None)], "1"),
        ([("conflict", THREE, TWO, None), ("promote", ONE, TWO, "done")], "12"),
        ([("promote", ONE, TWO, "done"), ("conflict", ONE, THREE, None)], "12"),
        ([("promote", ONE, TWO, "done"), ("promote", THREE, ONE, "done", "other")], "12"),
    ],
)
def test_champions_that_the_entries_imply(steps, champions):
    made = ledger(*steps)
    assert "".join(str(c.version) for c in made.champions("champion")) == champions
    assert made.problems() == ()
    assert (made.champion("champion").version if champions else None) == (champions[-1] if champions else None)


def test_an_absent_alias_is_a_champion_of_no_version():
    made = ledger(("promote", AliasTarget(), TWO, "done"))
    assert [c.version for c in made.champions("champion")] == [None, "2"]
    made = ledger(("promote", ONE, TWO, "done"), ("drift", TWO, AliasTarget(), None))
    assert made.champion("champion") == AliasTarget()


def test_what_is_unfinished_and_what_was_champion():
    made = ledger(("promote", ONE, TWO, "done"), ("hold", TWO, None, None), ("promote", TWO, THREE, None))
    assert [entry.sequence for entry in made.unfinished()] == [3]
    assert made.unfinished("other") == ()
    assert (made.recorded("champion", "1"), made.recorded("champion", "2")) == (ONE, TWO)
    assert made.recorded("champion", "3") is None
    assert made.find(made.entries[1].operation) == made.entries[1] and made.find("none") is None


def test_conflicts_spend_of_the_validation_budget_too():
    made = Ledger(model="m")
    for number, (kind, digest) in enumerate([("hold", "x"), ("conflict", "x"), ("reject", "y")]):
        entry = made.followed_by(draft(kind, ONE, audit=str(number), validation_digest=digest, alpha=0.01))
        made = Ledger(model="m", entries=(*made.entries, entry))
    assert [entry.sequence for entry in made.on_validation("x")] == [1, 2]


# ── The chain ──


GOOD = ledger(("reject", ONE, None, None), ("promote", ONE, TWO, "done"), ("promote", TWO, THREE, "done"))
TEXTS = ("model", "alias", "kind", "audit", "operation", "created", "actor", "why", "previous", "digest")


@given(st.integers(0, 2), st.sampled_from(TEXTS), st.text(min_size=1, max_size=9))
def test_any_change_of_an_entry_is_noticed(index, field, text):
    entry = GOOD.entries[index]
    if text == getattr(entry, field):
        return
    changed = entry.model_copy(update={field: text})
    entries = tuple(changed if other is entry else other for other in GOOD.entries)
    assert GOOD.model_copy(update={"entries": entries}).problems()


@pytest.mark.parametrize("order", [(0, 2), (1, 2), (0, 2, 1), (0, 0, 1, 2), (2, 1, 0)])
def test_entries_that_are_missing_doubled_or_in_another_order(order):
    assert GOOD.model_copy(update={"entries": tuple(GOOD.entries[i] for i in order)}).problems()


def test_an_entry_that_was_made_again_breaks_the_one_after():
    forged = LedgerEntry.of(draft("hold", ONE), sequence=1, previous=None)
    found = GOOD.model_copy(update={"entries": (forged, *GOOD.entries[1:])}).problems()
    assert found == ("entry 2 does not follow the one before it",)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([("promote", ONE, TWO, "done"), ("promote", ONE, THREE, "done")], "moves 'champion' from version 1"),
        ([("promote", ONE, TWO, None), ("promote", ONE, THREE, "done")], "is unfinished, and a later one"),
        ([("promote", ONE, TWO, "done"), ("promote", None, THREE, "done")], "moves 'champion' from None"),
        ([("reject", ONE, None, "done")], "an ending of entry 1, which moves nothing"),
        (
            [("promote", ONE, TWO, "done"), ("promote", TWO.model_copy(update={"digest": "sha256:x"}), THREE, "done")],
            "moves 'champion' from version 2",
        ),
    ],
)
def test_moves_that_do_not_follow_from_those_before(steps, problem):
    assert any(problem in found for found in ledger(*steps).problems())


def test_an_entry_survives_json_and_a_later_field_changes_no_digest():
    entry = ledger(("promote", ONE, TWO, "done")).entries[0].model_copy(update={"why": "é \ud7ff | <b>\n\x00"})
    entry = LedgerEntry.of(
        LedgerDraft(**entry.model_dump(include=set(LedgerDraft.model_fields))), sequence=1, previous=None
    )
    text = entry.compact_json()
    assert text.isascii() and LedgerEntry.model_validate_json(text) == entry
    assert "policy_digest" not in json.loads(text)


def test_operations_differ_by_decision_and_not_by_writer():
    same = [operation_id("m", "champion", expected=ONE, target=TWO, decision="d") for _ in range(2)]
    others = {
        operation_id("m", "champion", expected=ONE, target=TWO, decision="e"),
        operation_id("m", "champion", expected=ONE, target=THREE, decision="d"),
        operation_id("m", "champion", expected=AliasTarget(), target=TWO, decision="d"),
        operation_id("m", "other", expected=ONE, target=TWO, decision="d"),
        operation_id("n", "champion", expected=ONE, target=TWO, decision="d"),
    }
    assert len({*same, *others}) == 6


# ── Drift ──


@pytest.mark.parametrize(
    ("found", "drift"),
    [
        (AliasTarget(version="2"), False),
        (AliasTarget(version="2", run_id="r2"), False),
        (AliasTarget(version="2", run_id="made again"), True),
        (AliasTarget(version="3"), True),
        (AliasTarget(), True),
    ],
)
def test_drift(found, drift):
    made = ledger(("promote", ONE, TWO, "done"))
    assert History(ledger=made, alias="champion", found=found).drift is drift
    assert not History(ledger=Ledger(model="m"), alias="champion", found=found).drift


def test_an_unfinished_promotion_is_no_drift():
    made = History(ledger=ledger(("promote", ONE, TWO, None)), alias="champion", found=TWO)
    assert not made.drift and len(made.unfinished) == 1


# ── The journal ──


def test_an_intent_lasts_until_it_is_ended(tmp_path):
    journal = Journal(tmp_path / "state")
    assert journal.begun_at("here") == []
    journal.begin(Intent(registry="here", draft=draft("promote", ONE, TWO)))
    journal.begin(Intent(registry="there", draft=draft("promote", ONE, THREE)))
    (tmp_path / "state/intents/torn.json").write_text('{"registry": "here", "dra')
    assert [intent.draft.target.version for intent in Journal(tmp_path / "state").begun_at("here")] == ["2"]
    for _ in range(2):
        journal.end(draft("promote", ONE, TWO).operation)
    assert journal.begun_at("here") == [] and len(journal.begun_at("there")) == 1


def test_what_was_seen_never_goes_back(tmp_path):
    journal = Journal(tmp_path)
    journal.saw("run", GOOD.entries[2])
    journal.saw("run", GOOD.entries[0])
    assert journal.seen("run").sequence == 3
    assert journal.seen("another run") is None


def test_where_the_journal_is(monkeypatch, tmp_path):
    monkeypatch.setenv("FLATAUDIT_STATE", str(tmp_path / "own"))
    assert state_folder() == tmp_path / "own"
    monkeypatch.delenv("FLATAUDIT_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "flataudit"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local/state/flataudit"
