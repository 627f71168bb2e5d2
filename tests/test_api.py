"""Three lines in a notebook: the numbers are the probes', and the model and the session stay as they were."""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import flataudit
from flataudit.data.examples import checked
from flataudit.errors import ConfigurationError, DataError, ModelError, PluginError
from flataudit.evidence import Outcome
from flataudit.specs import Budget, LossSpec, Spec

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GENERATOR = np.random.default_rng(0)
INPUTS = GENERATOR.standard_normal((90, 4)).astype(np.float32)
LABELS = (INPUTS @ GENERATOR.standard_normal((4, 3))).argmax(1)
EVERYTHING = ["accuracy", "calibration", "hessian_trace", "spectrum", "sharpness", "weight_noise", "input_gradient"]
OTHER_TASKS = ("validation_r2", "validation_rmse")


def network(*extra: nn.Module, seed: int = 0) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), *extra)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def exported(net: nn.Module) -> torch.export.ExportedProgram:
    example = (torch.zeros(2, 4),)
    return torch.export.export(net.eval(), example, dynamic_shapes=({0: torch.export.Dim("batch")},))


def linear_accuracy(net: nn.Module) -> float:
    with torch.no_grad():
        return float(np.mean(net.eval()(torch.from_numpy(INPUTS)).argmax(1).numpy() == LABELS))


@contextmanager
def nothing_changes(net: nn.Module) -> Iterator[None]:
    """Weights, buffers, modes, flags, gradients and every global random state, bit for bit."""

    def state() -> list[object]:
        tensors = [t.detach().numpy().tobytes() for t in net.state_dict().values()]
        gradients = [None if p.grad is None else p.grad.numpy().tobytes() for p in net.parameters()]
        flags = [p.requires_grad for p in net.parameters()] + [part.training for part in net.modules()]
        numpy = tuple(np.asarray(part).tobytes() for part in np.random.get_state())
        return [tensors, gradients, flags, random.getstate(), numpy, torch.get_rng_state().numpy().tobytes()]

    before = state()
    yield
    assert state() == before


def awkward() -> nn.Sequential:
    """Half in training mode, partly frozen, with gradients left from a step."""
    net = network(nn.Dropout(0.5)).train()
    net[1].eval()
    net(torch.from_numpy(INPUTS)).sum().backward()
    net[0].requires_grad_(False)
    return net


def test_a_measured_model_and_session_are_bit_for_bit_as_before() -> None:
    net = awkward()
    with nothing_changes(net):
        evidence = flataudit.measure(net, INPUTS, LABELS, probes=EVERYTHING)
    assert all(m.outcome is Outcome.MEASURED for m in evidence.measurements if m.metric not in OTHER_TASKS), evidence
    assert evidence["validation_accuracy"].estimate == linear_accuracy(net)


def draws_then_fails(x: Tensor) -> Tensor:
    random.random(), np.random.random(), torch.rand(1)
    raise RuntimeError("broken")


def draws_always(x: Tensor) -> Tensor:
    return x[:, :3] + torch.rand(len(x), 3) + random.random() + np.random.random()


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.inner = function, nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(("function", "message"), [(draws_then_fails, "broken"), (draws_always, "same answer twice")])
def test_the_session_is_as_before_also_when_the_model_draws_or_fails(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    net = Calls(function)
    with nothing_changes(net), pytest.raises(ModelError, match=message):
        flataudit.measure(net, INPUTS, LABELS)


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_an_exported_program_gives_the_numbers_of_its_module(dtype: str | None) -> None:
    net = network()
    program = exported(net)
    with nothing_changes(net):
        ours = [
            flataudit.measure(model, INPUTS, LABELS, probes=["validation_loss", "hessian_trace"], dtype=dtype)
            for model in (net, program)
        ]
    for metric in ("validation_loss", "hessian_trace"):
        assert ours[0][metric].estimate == pytest.approx(ours[1][metric].estimate, rel=1e-4)
    assert ours[0].protocol == ours[1].protocol
    assert ours[0].protocol.dtype == (dtype or "float32")


@pytest.mark.parametrize("device", DEVICES)
def test_device_and_dtype_are_of_a_copy(device: str) -> None:
    net = network()
    with nothing_changes(net):
        evidence = flataudit.measure(net, INPUTS, LABELS, probes=["accuracy"], device=device, dtype="float64")
    assert (evidence.protocol.device, evidence.protocol.dtype) == (device, "float64")
    assert next(net.parameters()).dtype == torch.float32


def test_the_default_probes_answer_and_carry_error_and_cost() -> None:
    evidence = flataudit.measure(network().double(), INPUTS, LABELS)
    for metric in ("validation_accuracy", "hessian_trace", "lambda_max", "sharpness_l2"):
        assert evidence[metric].outcome is Outcome.MEASURED, evidence[metric]
        assert evidence[metric].cost.passes > 0


def test_the_same_seed_gives_the_same_numbers_whatever_ran_before() -> None:
    def numbers(seed: int) -> list[float | None]:
        found = flataudit.measure(network(), INPUTS, LABELS, probes=["hessian_trace", "weight_noise"], seed=seed)
        return [m.estimate for m in found.measurements]

    first = numbers(7)
    torch.rand(3), np.random.random()
    assert numbers(7) == first and numbers(8) != first


def test_arrays_tensors_and_audit_data_are_the_same_examples() -> None:
    data = checked("validation", "validation", INPUTS, LABELS, source="test")
    arguments = [
        (INPUTS, LABELS),
        (torch.from_numpy(INPUTS).requires_grad_(), torch.from_numpy(LABELS)),
        (INPUTS.tolist(), LABELS.tolist()),
        (data, None),
    ]
    found = [flataudit.measure(network(), x, y, probes=["accuracy"]) for x, y in arguments]
    assert {e["validation_accuracy"].estimate for e in found} == {linear_accuracy(network())}
    assert found[0].protocol == found[1].protocol == found[3].protocol


def test_a_probe_runs_once_however_it_is_named_and_with_the_parameters_that_were_given() -> None:
    names = ["lambda_max", "lambda_min", "spectrum", "accuracy"]
    evidence = flataudit.measure(network(), INPUTS, LABELS, probes=names)
    assert [p.partition("@")[0] for p in evidence.protocol.probes] == ["spectrum", "accuracy"]
    noisy = {"use": "weight_noise", "draws": 3}
    for probes in (
        [noisy, "weight_noise_accuracy"],
        ["weight_noise", noisy],
        [{"use": "weight_noise", "params": {"draws": 3}}],
        [Spec(use="weight_noise", params={"draws": 3})],
    ):
        (probe,) = flataudit.measure(network(), INPUTS, LABELS, probes=probes).protocol.probes
        assert '"draws":3' in probe
    with pytest.raises(ConfigurationError, match="one set of parameters of 'weight_noise'"):
        flataudit.measure(network(), INPUTS, LABELS, probes=[noisy, {"use": "weight_noise", "draws": 4}])


def test_the_relative_error_reaches_the_probes_that_have_one_unless_they_say_their_own() -> None:
    probes = ["accuracy", "hessian_trace"]
    evidence = flataudit.measure(network(), INPUTS, LABELS, probes=probes, relative_error=0.25)
    assert ["0.25" in probe for probe in evidence.protocol.probes] == [False, True]
    own = [{"use": "hessian_trace", "relative_error": 0.5}]
    (probe,) = flataudit.measure(network(), INPUTS, LABELS, probes=own, relative_error=0.25).protocol.probes
    assert '"relative_error":0.5' in probe


def test_a_budget_that_is_used_up_is_an_outcome() -> None:
    probes = ["accuracy", "hessian_trace", "sharpness"]
    evidence = flataudit.measure(network(), INPUTS, LABELS, probes=probes, budget=Budget(passes=0.5))
    assert evidence["validation_accuracy"].outcome is Outcome.MEASURED
    assert evidence["sharpness_l2"].outcome is Outcome.OVER_BUDGET


def test_too_few_classes_is_an_outcome_with_the_label() -> None:
    evidence = flataudit.measure(network(), INPUTS, 2 * LABELS, probes=["accuracy"])
    assert evidence["validation_accuracy"].outcome is Outcome.FAILED
    assert "label 4" in str(evidence["validation_accuracy"].reason)


def test_listed_classes_are_numbered_by_their_places() -> None:
    plain = flataudit.measure(network(), INPUTS, LABELS, probes=["accuracy"])
    for targets, classes in ((LABELS + 1, (1, 2, 3)), (np.array(["a", "c", "b"])[LABELS], ("a", "c", "b"))):
        found = flataudit.measure(network(), INPUTS, targets, probes=["accuracy"], classes=classes)
        assert found["validation_accuracy"].estimate == plain["validation_accuracy"].estimate
    with pytest.raises(DataError, match=r"one of the classes 1, 2.*got '0' in example \d+"):
        flataudit.measure(network(), INPUTS, LABELS, probes=["accuracy"], classes=(1, 2))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"probes": ["hessian_trase"]}, ConfigurationError, "did you mean hessian_trace?"),
        ({"probes": [{"use": "accuracy", "depth": 3}]}, PluginError, "depth"),
        ({"probes": [{"name": "accuracy"}]}, ConfigurationError, "'use'"),
        ({"model": 3}, ConfigurationError, "got a int"),
        ({"model": "no.onnx"}, ConfigurationError, "a path of an ONNX model"),
        ({"model": nn.Linear(4, 1)}, ModelError, "task: binary"),
        ({"targets": None}, DataError, "targets"),
        ({"targets": LABELS[:-1]}, DataError, "as many as inputs"),
        ({"targets": (LABELS > 0).astype(float)}, ConfigurationError, "all 0 or 1"),
        ({"model": network(nn.Softmax(1)), "outputs": "logits"}, ModelError, "declare `outputs: probabilities`"),
        ({"targets": LABELS + 1}, ModelError, r"class 3 and no class 0.*`classes: \[1, 2, 3\]`"),
        ({"inputs": INPUTS[:, :2]}, ModelError, r"\(n, 2\)"),
    ],
)
def test_mistakes_say_what_to_do(fields: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {"model": network(), "inputs": INPUTS, "targets": LABELS} | fields
    with pytest.raises(error, match=message):
        flataudit.measure(**arguments)  # type: ignore[arg-type]


def test_floating_point_targets_are_values() -> None:
    values = INPUTS.sum(1).astype(np.float64)
    net = nn.Linear(4, 1)
    with torch.no_grad():
        net.weight.fill_(1.0), net.bias.fill_(0.5)
    evidence = flataudit.measure(net, INPUTS, values, probes=["accuracy"])
    assert evidence["validation_loss"].estimate == pytest.approx(0.25, rel=1e-5)


class Quantiles(nn.Module):
    """The sum of the features, and constant distances to it in columns."""

    def __init__(self, *offsets: float) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.tensor(offsets))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True) + self.offsets


def test_columns_of_a_live_regression_are_taken_for_quantiles() -> None:
    values = INPUTS.sum(1).astype(np.float64)
    given = {"outputs": "quantiles", "quantiles": (0.05, 0.5, 0.95)}
    measured = partial(flataudit.measure, inputs=INPUTS, targets=values, probes=["intervals", "hessian_trace"])
    found = measured(Quantiles(-1.0, 0.0, 1.0), **given)
    assert found["interval_coverage"].estimate == 1.0
    assert found["interval_width"].estimate == pytest.approx(2.0, rel=1e-6)
    assert "trained with" in (found["hessian_trace"].reason or "")
    assert found.notes == ("it states a distribution: output columns of the quantiles 0.05, 0.5, 0.95",)
    with pytest.raises(ModelError, match="fall in every row"):
        measured(Quantiles(1.0, 0.0, -1.0), **given)
    with pytest.raises(ModelError, match="`outputs: quantiles`"):
        measured(Quantiles(-1.0, 0.0, 1.0))
    with pytest.raises(ConfigurationError, match="outputs='quantiles' beside their levels"):
        measured(Quantiles(-1.0, 0.0, 1.0), quantiles=(0.05, 0.5, 0.95))


def test_a_search_and_an_estimator_that_cannot_be_pickled_are_measured() -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import BayesianRidge
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    values = INPUTS.sum(1).astype(np.float64) + np.random.default_rng(0).normal(size=len(INPUTS))
    search = GridSearchCV(BayesianRidge(), {"alpha_1": [1e-6, 1e-3]}, cv=2).fit(INPUTS, values)
    found = flataudit.measure(search, INPUTS, values, probes=["intervals"])
    assert found["crps"].outcome is Outcome.MEASURED and found.candidate.digest is not None
    opaque = make_pipeline(FunctionTransformer(lambda x: x), BayesianRidge()).fit(INPUTS, values)
    found = flataudit.measure(opaque, INPUTS, values, probes=["intervals"])
    assert found["crps"].outcome is Outcome.MEASURED and found.candidate.digest is None


def test_measuring_works_inside_no_grad() -> None:
    with torch.no_grad():
        evidence = flataudit.measure(network(), INPUTS, LABELS, probes=["hessian_trace"])
        assert not torch.is_grad_enabled()
    assert evidence["hessian_trace"].outcome is Outcome.MEASURED


def test_the_digest_is_of_the_weights() -> None:
    digests = [
        flataudit.measure(net, INPUTS, LABELS, probes=["accuracy"]).candidate.digest
        for net in (network(), network(), network(seed=1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_compare_gives_challenger_minus_champion() -> None:
    champion, challenger = (
        flataudit.measure(network(seed=seed), INPUTS, LABELS, probes=["accuracy"]) for seed in (0, 1)
    )
    found = {c.metric: c for c in flataudit.compare(champion, challenger)}
    accuracy = found["validation_accuracy"]
    expected = linear_accuracy(network(seed=1)) - linear_accuracy(network(seed=0))
    assert (accuracy.champion, accuracy.challenger) == ("champion", "challenger")
    assert accuracy.difference == pytest.approx(expected)
    assert accuracy.interval is not None and accuracy.interval[0] < expected < accuracy.interval[1]


def test_compare_refuses_other_protocols() -> None:
    champion = flataudit.measure(network(), INPUTS, LABELS, probes=["accuracy"])
    challenger = flataudit.measure(network(), INPUTS, LABELS, probes=["accuracy"], seed=1)
    found = flataudit.compare(champion, challenger)
    assert {c.metric for c in found} == {"validation_accuracy", "validation_loss", "validation_brier"}
    assert all(c.difference is None and "seed: 0 / 1" in str(c.reason) for c in found)


def test_no_warning_reaches_the_notebook() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flataudit.measure(network(), INPUTS, LABELS)


def test_labels_that_hold_together_and_a_class_for_each_token() -> None:
    """Accuracy, loss and an exact trace of a multi-label and of a sequence model, through the front door."""
    source = np.random.default_rng(0)
    x = source.standard_normal((60, 5))
    marks = source.integers(0, 2, (60, 3))
    module = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    probes = ["accuracy", "hessian_trace", "calibration", "sharpness"]
    found = flataudit.measure(module, x, marks, probes=probes, task="multilabel")
    logits = module(torch.tensor(x)).detach()
    loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(marks).double())
    assert found["validation_loss"].estimate == pytest.approx(float(loss), rel=1e-9)
    right = float(((logits > 0).numpy() == marks).mean())
    assert found["validation_accuracy"].estimate == pytest.approx(right)
    assert found["hessian_trace"].standard_error == 0
    assert found["calibration_error"].details["answers"] == 180, "each label is one"

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.table(tokens)))

    tokens, classes = source.integers(0, 7, (60, 5)), source.integers(0, 3, (60, 5))
    classes[:, 4] = -100
    tagger = Tagger().double()
    found = flataudit.measure(tagger, tokens, classes, probes=probes, task="multiclass")
    logits = tagger(torch.tensor(tokens)).detach()
    loss = nn.functional.cross_entropy(logits.movedim(-1, 1), torch.tensor(classes))
    assert found["validation_loss"].estimate == pytest.approx(float(loss), rel=1e-9)
    trace = found["hessian_trace"]
    assert trace.outcome is Outcome.MEASURED and 0 < trace.standard_error < 0.02 * trace.estimate


def test_a_declared_loss_is_the_one_that_is_differentiated() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    traces = [
        flataudit.measure(module, INPUTS, LABELS, probes=["hessian_trace"], loss=loss)
        for loss in (None, LossSpec(use="cross_entropy", label_smoothing=0.3, label_weights=(1.0, 2.0, 0.5)))
    ]
    assert traces[0]["hessian_trace"].estimate != pytest.approx(traces[1]["hessian_trace"].estimate, rel=1e-3)
    assert traces[0].protocol.digest != traces[1].protocol.digest
    with pytest.raises(ValidationError, match="parameters of cross_entropy"):
        LossSpec(use="cross_entropy", delta=2.0)
    with pytest.raises(ConfigurationError, match="a loss of a multiclass model"):
        flataudit.measure(module, INPUTS, LABELS, loss=LossSpec(use="huber"))
