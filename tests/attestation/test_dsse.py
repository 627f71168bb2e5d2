"""DSSE: the encoding of its specification, and that no byte of an envelope can be changed unnoticed."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_world import key

from flataudit.attestation.dsse import MAX_BYTES, PAYLOAD_TYPE, Envelope, pae, read_envelope, signatories, signed
from flataudit.attestation.faults import AttestationError
from flataudit.attestation.statement import read_statement

ENVELOPE = signed(b'{"a":1}', [key(1), key(2)])


def told(**changes: object) -> bytes:
    return json.dumps(json.loads(ENVELOPE.to_bytes()) | changes).encode()


def refused(data: bytes) -> str:
    with pytest.raises(AttestationError) as caught:
        read_envelope(data)
    return caught.value.field


@pytest.mark.parametrize(
    ("kind", "body", "encoded"),
    [  # protocol.md of secure-systems-lab/dsse: the example, and lengths in bytes
        (
            "http://example.com/HelloWorld",
            b"hello world",
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        ),
        ("", b"", b"DSSEv1 0  0 "),
        ("é", "ü ".encode(), b"DSSEv1 2 \xc3\xa9 3 \xc3\xbc "),
        ("a b", b"\x00 1 ", b"DSSEv1 3 a b 4 \x00 1 "),
    ],
)
def test_the_encoding_is_that_of_the_specification(kind: str, body: bytes, encoded: bytes) -> None:
    assert pae(kind, body) == encoded


def test_an_envelope_comes_back_with_all_its_signatures() -> None:
    found = read_envelope(ENVELOPE.to_bytes())
    assert found == ENVELOPE
    trusted = {one.key_id: one.public for one in (key(1), key(2), key(3))}
    assert signatories(found, trusted) == (key(1).key_id, key(2).key_id)
    assert signatories(found, {key(2).key_id: key(2).public}) == (key(2).key_id,)
    assert signatories(found, {key(3).key_id: key(3).public}) == ()


def test_the_signature_is_ed25519_over_the_encoding() -> None:
    key(1).key.public_key().verify(ENVELOPE.signatures[0].value, pae(PAYLOAD_TYPE, b'{"a":1}'))


def test_zero_signatures_are_nobody() -> None:
    bare = read_envelope(signed(b"{}", []).to_bytes())
    assert bare.signatures == () and signatories(bare, {key().key_id: key().public}) == ()


def test_a_signature_of_another_payload_is_refused() -> None:
    moved = Envelope(b'{"a":2}', ENVELOPE.signatures)
    with pytest.raises(AttestationError, match="this key did not make") as caught:
        signatories(moved, {key(1).key_id: key(1).public})
    assert caught.value.field == "signatures[0].sig"


def test_each_field_is_read_strictly() -> None:
    good = base64.b64encode(b"x").decode()
    assert refused(b"x" * (MAX_BYTES + 1)) == "envelope"
    assert refused(b"[" * 100_000) == "envelope"
    assert refused(b'{"payload":"","payload":"","payloadType":"","signatures":[]}') == "envelope"
    assert refused(told(more=1)) == "envelope"
    assert refused(told(payloadType="text/plain")) == "payloadType"
    assert refused(told(payload=5)) == "payload"
    assert refused(told(payload="eA=\n=")) == "payload"
    assert refused(told(payload="eB==")) == "payload"  # "eA==" with a bit after its end
    assert refused(told(payload="_-==")) == "payload"
    assert refused(told(signatures={})) == "signatures"
    assert refused(told(signatures=[{"sig": good}])) == "signatures[0]"
    assert refused(told(signatures=[{"keyid": "k", "sig": good}, {"keyid": "\n", "sig": good}])) == (
        "signatures[1].keyid"
    )
    assert refused(told(signatures=[{"keyid": "k", "sig": "eB=="}])) == "signatures[0].sig"
    assert refused(told(signatures=[{"keyid": "k", "sig": good}] * 17)) == "signatures"


@pytest.mark.parametrize("place", range(0, len(ENVELOPE.to_bytes()), 3))
def test_every_changed_byte_is_noticed(place: int) -> None:
    data = bytearray(ENVELOPE.to_bytes())
    data[place] ^= 1 + place % 127
    trusted = {one.key_id: one.public for one in (key(1), key(2))}
    try:
        found = signatories(read_envelope(bytes(data)), trusted)
    except AttestationError:
        return
    assert len(found) < 2  # the id of one of the keys: nobody is known who made that signature


texts = st.one_of(st.text(max_size=40), st.sampled_from([PAYLOAD_TYPE, "eA==", "payload", key().key_id]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
SHAPED = st.fixed_dictionaries(
    {"payload": values, "payloadType": st.just(PAYLOAD_TYPE) | values},
    optional={"signatures": st.lists(st.dictionaries(st.sampled_from(["keyid", "sig"]), values), max_size=3) | values},
)


@given(st.binary(max_size=200) | SHAPED.map(lambda made: json.dumps(made).encode()))
@settings(max_examples=300, deadline=None)
def test_only_our_own_errors_come_of_any_envelope(data: bytes) -> None:
    try:
        signatories(read_envelope(data), {key().key_id: key().public})
    except AttestationError as error:
        assert error.field and str(error).startswith("expected ")


@given(data=st.binary(max_size=200) | values.map(lambda made: json.dumps(made).encode()))
@settings(max_examples=200, deadline=None)
def test_only_our_own_errors_come_of_any_statement(data: bytes) -> None:
    with pytest.raises(AttestationError):
        read_statement(data)


def test_nothing_prints_a_key(capsys: Any) -> None:
    print(key(), key().public)
    assert capsys.readouterr().out.strip() == "Signer() PublicKey()"
