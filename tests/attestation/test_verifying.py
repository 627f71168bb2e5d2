"""Every check of an attestation: what holds, what was changed and where, and a thousand changed bytes."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import FILES, NOW, POLICY, World, fields, key, trusting

from flataudit.attestation.dsse import Envelope, read_envelope, signed
from flataudit.attestation.faults import AttestationError
from flataudit.attestation.statement import PREDICATE_TYPE, STATEMENT_TYPE, read_statement, statement_of
from flataudit.attestation.verifying import Attested, Terms, verified
from flataudit.journal import Seen
from flataudit.ledger import AliasTarget, LedgerDraft, LedgerEntry

OTHER = "sha256:" + "99" * 32


def test_what_a_gate_promoted_verifies(world: World) -> None:
    found = world.verify(trusting(key(), policy_digest=POLICY, minimum=2))
    assert (found.result, found.faults, found.signed_by) == ("verified", (), (key().key_id,))
    assert found.unchecked == ("evidence/v3",)
    assert found.statement is not None and found.statement.terms.sequence == 2


def test_the_statement_is_in_totos_with_slsas_predicate(world: World) -> None:
    envelope = world.attested().envelope
    assert envelope is not None
    told = json.loads(read_envelope(envelope).payload)
    assert (told["_type"], told["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    assert told["subject"] == [{"name": "models:/fraud/3", "digest": {"sha256": world.attested().digest[7:]}}]
    predicate = told["predicate"]
    assert predicate["verificationResult"] == "PASSED" and predicate["resourceUri"] == "models:/fraud@champion"
    assert predicate["policy"] == {"uri": "flataudit:policy", "digest": {"sha256": POLICY[7:]}}
    assert [one["uri"] for one in predicate["inputAttestations"]] == ["audit.json", "evidence/v3"]
    entries = world.book.read().entries
    assert predicate["flataudit_decision"]["previous"] == entries[0].digest
    assert predicate["flataudit_decision"]["entry"] == entries[1].attested_digest


def test_a_statement_comes_back_and_is_read_strictly(world: World) -> None:
    statement = statement_of(world.book.read().entries[1], ledger="run", version="0.1.0")
    assert statement is not None and read_statement(statement.to_bytes()) == statement
    for change, field in (
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "predicateType"),
        ({"subject": []}, "statement.subject"),
        ({"more": 1}, "statement.more"),
    ):
        with pytest.raises(AttestationError) as caught:
            read_statement(json.dumps(json.loads(statement.to_bytes()) | change).encode())
        assert caught.value.field == field


def test_a_rejected_version_is_attested_as_failed(world: World) -> None:
    found = verified(world.attested(alias=None, version="2"), trusting(key()))
    assert {"verificationResult", "subject"} <= fields(found) and found.signed_by


def test_unsigned_is_said_and_never_verified(build: Callable[..., World]) -> None:
    world = build(signer=None)
    assert world.verify(Terms(now=NOW, allow_unsigned=True)).result == "unsigned"
    assert fields(world.verify(Terms(now=NOW))) == {"signatures"}
    assert fields(world.verify(trusting(key()))) == {"signatures"}
    assert fields(world.verify(trusting(key(), allow_unsigned=True))) == {"signatures"}
    (world.model / "MLmodel").write_bytes(b"changed")
    assert fields(world.verify(Terms(now=NOW, allow_unsigned=True))) == {"subject", "alias"}


def test_a_signature_that_nobody_checks_is_no_signature(world: World) -> None:
    assert fields(world.verify(Terms(now=NOW))) == {"signatures"}
    assert world.verify(Terms(now=NOW, allow_unsigned=True)).result == "unsigned"


def test_another_key_is_not_trusted(world: World) -> None:
    assert fields(world.verify(trusting(key(2)))) == {"signatures[0].keyid"}
    assert world.verify(trusting(key(2), key())).result == "verified"


def test_a_forged_signature_in_a_trusted_name_is_found(world: World) -> None:
    envelope = read_envelope(world.attested().envelope or b"")
    mine = signed(envelope.payload, [key(2)]).signatures[0]
    forged = Envelope(envelope.payload, (replace(mine, key_id=key().key_id),)).to_bytes()
    assert fields(world.verify(envelope=forged)) == {"signatures[0].sig", "envelope"}


def test_an_attestation_expires(build: Callable[..., World]) -> None:
    world = build(expires="2026-05-31T00:00:00+00:00")
    assert fields(world.verify()) == {"expires"}
    early = replace(trusting(key()), now=NOW.replace(month=5, day=30))
    assert world.verify(early).result == "verified"
    assert fields(world.verify(replace(early, now=NOW.replace(year=2025)))) == {"timeVerified"}


def test_another_policy_is_named(world: World) -> None:
    assert fields(world.verify(trusting(key(), policy_digest=OTHER))) == {"policy.digest"}


def test_another_models_attestation_does_not_fit(world: World) -> None:
    """Its bytes, its envelope and its tag copied to a version of another model, or to another version."""
    envelope = world.attested().envelope
    digest = world.attested().digest
    elsewhere = Attested(digest=digest, name="loans", version="3", alias="champion", envelope=envelope)
    assert "subject" in fields(verified(elsewhere, trusting(key())))
    version = Attested(digest=digest, name="fraud", version="7", envelope=envelope)
    assert fields(verified(version, trusting(key()))) == {"subject"}
    alias = Attested(digest=digest, name="fraud", version="3", alias="staging", envelope=envelope)
    assert fields(verified(alias, trusting(key()))) == {"resourceUri"}
    assert verified(replace(alias, alias="champion"), trusting(key())).result == "verified"


def test_an_envelope_of_another_registry_does_not_fit(world: World) -> None:
    assert fields(world.verify(ledger_run="another")) == {"statement.predicate.flataudit_decision.ledger"}


def test_an_older_attestation_is_a_replay(world: World) -> None:
    """Of two promotions of the same version, the older envelope in the newer one's place."""
    older = world.attested().envelope
    digest = world.attested().digest
    world.decide("rollback", "1", "sha256:" + "01" * 32)
    newer = world.decide("promote", "3", digest)
    assert world.verify().result == "verified"
    found = fields(world.verify(envelope=older))
    assert {"envelope", "statement.predicate.flataudit_decision.sequence"} <= found
    offline = Attested(digest=digest, name="fraud", version=None, alias="champion", envelope=older)
    assert verified(offline, trusting(key())).result == "verified"
    seen = Seen(ledger_run="x", sequence=newer.sequence, digest=newer.attested_digest)
    assert fields(verified(replace(offline, seen=seen), trusting(key()))) == {"sequence"}
    assert fields(verified(offline, trusting(key(), minimum=5))) == {"sequence"}
    newest = replace(offline, envelope=world.attested().envelope, seen=seen)
    assert verified(newest, trusting(key())).result == "verified"


def test_a_ledger_cut_back_is_noticed(world: World) -> None:
    del world.memory.params["decision.000003"]
    assert fields(world.verify()) == {"sequence"}


def test_a_forged_entry_has_no_signature(world: World) -> None:
    """Whoever can write to the registry promotes by hand, with an entry, an ending and the alias."""
    attacker = replace(world, signer=None)
    attacker.decide("promote", "9", world.attested().digest)
    assert fields(replace(world, points_to="9").verify()) == {"signatures"}
    stolen = replace(attacker, signer=key(7))
    stolen.decide("promote", "9", world.attested().digest)
    assert fields(replace(world, points_to="9").verify()) == {"signatures[0].keyid"}


def test_an_alias_that_no_decision_moved_is_drift(world: World) -> None:
    assert {"alias", "subject"} <= fields(replace(world, points_to="2").verify())
    world.decide("drift", "2", world.attested().digest)
    assert {"alias", "verificationResult"} <= fields(replace(world, points_to="2").verify())


def test_a_forged_tag_is_named_and_decides_nothing(world: World) -> None:
    assert fields(replace(world, tag=OTHER).verify()) == {"tag flataudit.attestation"}
    told = world.book.read().entries[1].attestation
    assert replace(world, tag=told).verify().result == "verified"
    assert replace(world, tag="unsigned").verify().result == "verified"


def test_what_is_missing_is_said(world: World) -> None:
    world.memory.artifacts.clear()
    assert fields(world.verify()) == {"envelope"}
    empty = Attested(digest=OTHER, name="fraud", version="3")
    assert fields(verified(empty, trusting(key()))) == {"envelope"}
    del world.memory.params["outcome.000002"]
    assert fields(verified(world.attested(alias=None), trusting(key()))) == {"envelope", "ledger"}


def test_a_decision_on_unknown_bytes_has_no_statement(world: World) -> None:
    entry = world.decide("drift", "5", "not a digest")
    assert entry.attestation is None
    found = replace(world, points_to="5").verify(digest="not a digest")
    assert found.result == "failed" and fields(found) & {"alias", "statement"}


def test_an_entry_in_other_bytes_is_no_entry(world: World) -> None:
    text = world.memory.params["decision.000002"]
    assert LedgerEntry.from_json(text).compact_json() == text
    with pytest.raises(ValueError, match="other bytes"):
        LedgerEntry.from_json(text.replace('"v3":', '"v3": '))
    entry = LedgerEntry.from_json(text)
    assert entry.with_attestation(OTHER).attested_digest == entry.attested_digest
    assert entry.with_attestation(OTHER).computed_digest != entry.digest


def test_a_thousand_changed_bytes_are_all_noticed_and_placed(world: World) -> None:
    """One byte of an artifact, of the evidence, of the envelope or of a ledger entry; each with the field it is in.

    The machine that verifies has never seen the ledger before.
    """
    generator, memory = random.Random(7), world.memory
    book = {key: key for key in memory.params}
    assert sorted(book) == ["decision.000001", "decision.000002", "decision.000003", "outcome.000002"]
    entry = world.attested().entry
    assert entry is not None and entry.attestation is not None
    place = f"attestations/{entry.attestation[7:]}.json"
    missed: list[str] = []
    counted: dict[str, int] = {}
    for _ in range(1000):
        kind = generator.choice(["artifact", "evidence", "envelope", "ledger"])
        counted[kind] = counted.get(kind, 0) + 1
        if kind == "artifact":
            name = generator.choice(sorted(FILES))
            (world.model / name).write_bytes(_changed(FILES[name], generator))
            found = world.verify(seen=None)
            (world.model / name).write_bytes(FILES[name])
            wanted = {"subject"}
        elif kind == "evidence":
            found = replace(world, audit=_changed(world.audit, generator)).verify(seen=None)
            wanted = {"inputAttestations[audit.json]"}
        elif kind == "envelope":
            kept = memory.artifacts[place]
            memory.artifacts[place] = _changed(kept, generator)
            found = world.verify(seen=None)
            memory.artifacts[place] = kept
            wanted = {"envelope"}
        else:
            name = generator.choice(sorted(book))
            text = memory.params[name]
            memory.params[name] = _changed(text.encode(), generator).decode("latin-1")
            found = world.verify(seen=None)
            memory.params[name] = text
            wanted = {"ledger"}
        if found.result != "failed" or not wanted <= fields(found):
            missed.append(f"{kind}: {found.result} {fields(found)}")
    assert missed == [] and min(counted.values()) > 200
    assert world.verify(seen=None).result == "verified"


def test_a_changed_envelope_alone_is_placed_in_it(world: World) -> None:
    """Without a ledger, as offline: the part of the envelope that was changed is named."""
    generator, good = random.Random(3), replace(world.attested(), ledger=None, entry=None, inputs={}, seen=None)
    assert verified(good, trusting(key())).result == "verified"
    parts = set()
    for _ in range(400):
        found = verified(replace(good, envelope=_changed(good.envelope or b"", generator)), trusting(key()))
        assert found.result == "failed"
        parts |= fields(found)
    assert {"envelope", "payload", "signatures[0].sig", "signatures[0].keyid"} <= parts


def _changed(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data))
    return data[:place] + bytes([data[place] ^ generator.randrange(1, 256)]) + data[place + 1 :]


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_envelope_makes_verification_fall(data: bytes, signed_: bool) -> None:
    envelope = signed(data, [key()]).to_bytes() if signed_ else data
    found = verified(Attested(digest=OTHER, name="fraud", version="3", envelope=envelope), trusting(key()))
    assert found.result == "failed" and found.faults


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path, *(found for key, one in inner for found in _paths(one, (*path, key)))]


DIGEST = "sha256:" + "ab" * 32
DRAFT = LedgerDraft(
    model="fraud",
    alias="champion",
    kind="promote",
    audit="a",
    operation=DIGEST,
    created="2026-05-01T00:00:00+00:00",
    actor="a test",
    policy_digest=DIGEST,
    evidence={"v3": DIGEST},
    expires="2027-01-01T00:00:00+00:00",
    target=AliasTarget(version="3", digest=DIGEST),
)
WRITTEN = statement_of(LedgerEntry.of(DRAFT, sequence=1, previous=DIGEST), ledger="run", version="0.1.0")
assert WRITTEN is not None
TOLD = json.loads(WRITTEN.to_bytes())
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([DIGEST, "9" * 80]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(_paths(TOLD)), junk)
@settings(max_examples=300, deadline=None)
def test_any_field_may_hold_anything_and_only_our_own_errors_come_of_it(
    path: tuple[str | int, ...], value: object
) -> None:
    """A statement that the trusted key signed, with one field exchanged: refused, or read, and never a crash."""
    told = json.loads(json.dumps({"": TOLD}))
    place = told
    for key_ in ("", *path)[:-1]:
        place = place[key_]
    place[("", *path)[-1]] = value
    payload = json.dumps(told[""]).encode()
    try:
        assert read_statement(payload).to_bytes()
    except AttestationError as error:
        assert error.field
    envelope = signed(payload, [key()]).to_bytes()
    found = verified(Attested(digest=DIGEST, name="fraud", version="3", envelope=envelope), trusting(key()))
    assert found.result == "failed" or found.statement is not None


def test_an_alias_of_a_former_life_does_not_match(world: World, tmp_path: Path) -> None:
    found = world.attested()
    gone = replace(found, found=AliasTarget(version="3", run_id="another"))
    assert verified(gone, trusting(key())).result == "verified"  # the ledger's entry names no run
    assert verified(replace(gone, found=AliasTarget()), trusting(key())).faults
