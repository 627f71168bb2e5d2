"""What is declared of the candidates' outputs: by which names, and with which levels."""

from collections.abc import Mapping

import pytest

from flataudit.evidence import Candidate
from flataudit.specs import OutputKind, outputs_of, refuse_stray_levels, strangers

CANDIDATES = [
    Candidate(name="m", version="7", flavour="pytorch", uri=""),
    Candidate(name="m", version="8", flavour="sklearn", run_id="abc", uri=""),
]


@pytest.mark.parametrize("name", ["v8", "8", "abc", "sklearn", "m"])
def test_every_name_of_a_candidate_is_known(name: str) -> None:
    declared: Mapping[str, OutputKind] = {name: "probabilities"}
    assert outputs_of(declared, CANDIDATES[1]) == "probabilities"
    assert strangers(declared, CANDIDATES) == []


def test_names_that_no_candidate_bears_are_told_in_order() -> None:
    assert strangers({"v9": "logits", "v8": "logits", "pytroch": "logits"}, CANDIDATES) == ["v9", "pytroch"]
    assert strangers(None, CANDIDATES) == strangers("logits", []) == []
    assert strangers({"None": "logits", "vNone": "logits"}, [Candidate(name="m", uri="")]) == ["None", "vNone"]


@pytest.mark.parametrize(
    ("declared", "levels", "message"),
    [
        (None, (0.1, 0.5), "outputs: quantiles beside levels"),
        ("normal", (0.1, 0.5), "outputs: quantiles beside levels"),
        ({"v7": "values"}, (0.5,), "outputs: quantiles beside levels"),
        ("quantiles", (), "levels of the columns, got none"),
        ({"v7": "quantiles"}, (), "levels of the columns, got none"),
        ("quantiles", (0.9, 0.5, 0.1), "rising levels on both sides of 0.5, got 0.9, 0.5, 0.1"),
        ("quantiles", (0.6, 0.9), "both sides"),
    ],
)
def test_levels_that_belong_to_nothing(
    declared: OutputKind | Mapping[str, OutputKind] | None, levels: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_stray_levels(declared, levels)


def test_levels_beside_quantiles_of_one_candidate() -> None:
    refuse_stray_levels({"v7": "quantiles", "v8": "normal"}, (0.05, 0.5, 0.95))
    refuse_stray_levels("quantiles", (0.5,))
    refuse_stray_levels(None, ())
