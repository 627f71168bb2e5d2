"""What comes from outside and is read by the parent: any text has an answer, or a refusal of our own."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flataudit.config import AuditConfig, parse_config
from flataudit.errors import FlatauditError, ModelError
from flataudit.evidence import Array
from flataudit.executors.frames import ArrayHeader, Decoder, EvidenceHeader, ProgressNote, encode

POLICY = "model: m\ndata: {validation: {use: npz, path: v.npz}}\ntrust: false\npolicy: {criteria: []}\n"
LIMITS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = st.sampled_from([*AuditConfig.model_fields, "use", "path", "name", "params", "metric", "at_most", "digest"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), KEYS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
NONCE = "n" * 32
STREAM = b"".join(
    encode(NONCE, content, body)
    for content, body in (
        (ProgressNote(what="loading", share=0.0), b""),
        (ArrayHeader(name="a", format="d", shape=(2,)), Array.of([1.0, 2.0]).data),
        (EvidenceHeader(), b'{"any": "json"}'),
    )
)


def parsed(text: str) -> None:
    try:
        config = parse_config(text)
    except FlatauditError:
        return
    assert isinstance(config, AuditConfig)


@LIMITS
@given(st.one_of(st.text(max_size=200), st.text(max_size=60).map(lambda more: POLICY + more)))
def test_a_policy_of_any_text(text: str) -> None:
    parsed(text)


@LIMITS
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_a_policy_of_known_keys_and_any_values(values: dict[str, object]) -> None:
    whole = {"model": "m", "data": {"validation": {"use": "npz", "path": "v.npz"}}} | values
    parsed(json.dumps(whole))


@LIMITS
@given(st.data())
def test_a_worker_that_says_anything(data: st.DataObject) -> None:
    raw = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    decoder = Decoder(NONCE)
    try:
        for frame in decoder.feed(bytes(raw)):
            assert frame.content.kind in ("progress", "array", "evidence")
    except ModelError:
        return
