"""Records: frozen, finite, and the same after a round trip."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flataudit.evidence import Array, AuditProtocol, Cost, Measurement, Metric, Outcome

TRACE = Metric(name="hessian_trace", unit="loss/parameter²", better="lower")


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["estimate", "standard_error", "interval"])
def test_no_number_that_is_not_finite_can_enter(field: str, poison: float) -> None:
    values: dict[str, object] = {"metric": "m", "outcome": "measured", "estimate": 1.0}
    values[field] = (0.0, poison) if field == "interval" else poison
    with pytest.raises(ValidationError, match="finite"):
        Measurement.model_validate(values)


def test_details_refuse_nan_too() -> None:
    with pytest.raises(ValidationError):
        TRACE.measured(1.0, details={"residual": math.nan})


def test_measured_needs_a_number_and_the_rest_a_reason() -> None:
    with pytest.raises(ValidationError, match="no estimate"):
        Measurement(metric="m", outcome=Outcome.MEASURED)
    with pytest.raises(ValidationError, match="no reason"):
        Measurement(metric="m", outcome=Outcome.FAILED)
    with pytest.raises(ValidationError, match="exchanged"):
        TRACE.measured(1.0, interval=(2.0, 1.0))


def test_records_are_frozen_and_strict() -> None:
    measured = TRACE.measured(1.0)
    with pytest.raises(ValidationError, match="frozen"):
        measured.estimate = 2.0
    with pytest.raises(ValidationError, match="Extra inputs"):
        Cost.model_validate({"sceonds": 1.0})


@given(st.floats(-1e300, 1e300), st.none() | st.floats(0, 1e300))
def test_json_round_trip_is_exact(estimate: float, error: float | None) -> None:
    measured = TRACE.measured(estimate, standard_error=error, interval=(estimate, estimate))
    assert Measurement.model_validate_json(measured.model_dump_json()) == measured


def test_protocols_name_their_differences() -> None:
    one = AuditProtocol(probes=("a@1",), data={"v": "x"}, seed=0, dtype="float32", device="cpu", libraries={})
    other = one.model_copy(update={"seed": 1})
    assert one.differences(one) == ()
    assert one.differences(other) == ("seed: 0 / 1",)
    assert one.digest != other.digest


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8", "bool"])
def test_arrays_carry_numpy_without_numpy(dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    packed = Array.pack(values)
    back = np.asarray(packed.view())
    assert back.dtype == values.dtype and np.array_equal(back, values)
    assert packed.values() == values.tolist()


def test_an_array_must_be_as_long_as_it_says() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Array("d", (3,), b"\0" * 16)
    with pytest.raises(ValueError, match="format"):
        Array("O", (1,), b"\0" * 8)
    assert io.BytesIO(Array.of([1.5]).data).read() == np.array([1.5]).tobytes()
