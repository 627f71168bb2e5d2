"""From one packed batch to several arguments: each with its own values, dtype and name, and the gradients flow."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flataudit
from flataudit.backends.arguments import Arguments, taken_by
from flataudit.backends.feeding import Feed, Part, feed
from flataudit.backends.torch_model import TorchModel
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData
from flataudit.curvature.inputs import why_no_input_gradients
from flataudit.data.examples import checked
from flataudit.errors import ModelError, NoInputGradientError
from flataudit.mlmodel import Signature, SignatureField
from flataudit.specs import InputField

N, WORDS = 20, 7
NUMBERS = InputField(name="numbers", shape=(2, 2))
WORD = InputField(name="words", shape=(3,), kind="integer")


def packed(*fields: InputField) -> AuditData:
    """Numbers are normal, whole ones from 0 to 6, categories places; all in one array."""
    source = np.random.default_rng(0)
    parts = [
        source.standard_normal((N, field.size))
        if field.kind == "number"
        else source.integers(0, len(field.categories) or WORDS, (N, field.size))
        for field in fields
    ]
    return AuditData("v", "validation", np.hstack(parts), np.arange(N) % 3, None, "sha256:0", fields=fields)


class Both(nn.Module):
    """Numbers and words."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table, self.head = nn.Embedding(WORDS, 2), nn.Linear(6, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def scores(self, numbers: Tensor, words: Tensor) -> Tensor:
        assert words.dtype == torch.int64 and numbers.dim() == 3
        return self.head(torch.cat([torch.tanh(numbers.flatten(1)), self.table(words).mean(1)], dim=1))


class ByName(Both):
    def forward(self, words: Tensor, numbers: Tensor, scale: float = 1.0) -> Tensor:
        return self.scores(numbers, words) * scale


class ByPlace(Both):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.scores(a, b)


class ByKeyword(Both):
    def forward(self, *, words: Tensor, numbers: Tensor) -> Tensor:
        return self.scores(numbers, words)


class AnyKeyword(Both):
    def forward(self, **given: Tensor) -> Tensor:
        return self.scores(**given)


class AnyPlace(Both):
    def forward(self, *given: Tensor) -> Tensor:
        return self.scores(*given)


class Dictionary(Both):
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.scores(batch["numbers"], batch["words"])


class Unannotated(Both):
    def forward(self, batch):  # type: ignore[no-untyped-def]
        return self.scores(batch["numbers"], batch["words"])


class ScriptedDictionary(Both):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        words = batch["words"]
        numbers = torch.tanh(batch["numbers"].flatten(1))
        return self.head(torch.cat([numbers, self.table(words).mean(1)], dim=1))


def program(module: nn.Module, args: tuple[object, ...], keywords: Mapping[str, object] | None = None) -> nn.Module:
    """Exported for any number of examples."""
    batch = torch.export.Dim("batch")

    def free(value: object) -> object:
        return {k: free(v) for k, v in value.items()} if isinstance(value, Mapping) else {0: batch}

    if keywords:
        shapes: object = {name: free(value) for name, value in keywords.items()}
    else:
        shapes = tuple(free(value) for value in args)
    return torch.export.export(module.eval(), args, dict(keywords or {}), dynamic_shapes=shapes).module()


A, B = torch.zeros(2, 2, 2), torch.zeros(2, 3, dtype=torch.int64)
MODULES = {
    "by name": ByName,
    "by place": ByPlace,
    "by keyword": ByKeyword,
    "any keyword": AnyKeyword,
    "any place": AnyPlace,
    "dictionary": Dictionary,
    "unannotated dictionary": Unannotated,
    "program by place": lambda: program(ByName(), (B, A)),
    "program by keyword": lambda: program(ByKeyword(), (), {"numbers": A, "words": B}),
    "program of a dictionary": lambda: program(Dictionary(), ({"numbers": A, "words": B},)),
    "script by name": lambda: torch.jit.trace(ByName(), (B, A)),
    "script of a dictionary": lambda: torch.jit.script(ScriptedDictionary()),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", MODULES)
def test_every_argument_gets_its_own_part_and_the_numbers_keep_their_gradient(kind: str) -> None:
    data, module = packed(NUMBERS, WORD), MODULES[kind]()
    model = TorchModel(module, "multiclass", arguments=Arguments.of(feed(data, None), module))
    verify(model, data)
    x, _ = model.tensors(data.inputs, None)
    assert x.shape == (N, 7)
    x.requires_grad_()
    scores = model.raw_outputs(model.parameters, x)
    numbers = torch.tensor(data.inputs[:, :4].reshape(N, 2, 2), dtype=torch.float32).requires_grad_()
    truth = ByPlace()(numbers, torch.tensor(data.inputs[:, 4:]).long())
    torch.testing.assert_close(scores, truth)
    (found,), (expected,) = (
        torch.autograd.grad(scores.square().sum(), x),
        torch.autograd.grad(truth.square().sum(), numbers),
    )
    torch.testing.assert_close(found[:, :4], expected.flatten(1))
    assert not found[:, 4:].any(), "whole numbers have no gradient"


def test_a_batch_of_fixed_size_is_cut_before_it_is_packed_apart() -> None:
    data = packed(NUMBERS, WORD)
    module = torch.export.export(
        ByPlace().eval(), (torch.zeros(6, 2, 2), torch.zeros(6, 3, dtype=torch.int64))
    ).module()
    arguments = Arguments.of(feed(data, None), module)
    fixed = TorchModel(module, "multiclass", arguments=arguments, fixed_batch=6)
    free = TorchModel(ByPlace(), "multiclass", arguments=arguments)
    np.testing.assert_allclose(fixed.predict(data.inputs), free.predict(data.inputs), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ids_beyond_what_half_precision_holds_stay_whole(dtype: torch.dtype) -> None:
    """In bfloat16 whole numbers above 256 have gaps; the ids 1,000 to 1,019 have an embedding each."""

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding.from_pretrained(torch.arange(3 * 1024.0).reshape(1024, 3) % 89 / 89)

        def forward(self, ids: Tensor, numbers: Tensor) -> Tensor:
            return self.table(ids[:, 0]) + numbers

    ids, numbers = np.arange(1000, 1020.0)[:, None], np.zeros((N, 3))
    fields = (InputField(name="ids", shape=(1,), kind="integer"), InputField(name="numbers", shape=(3,)))
    data = AuditData("v", "validation", np.hstack([ids, numbers]), np.arange(N) % 3, None, "", fields=fields)
    module = Many().to(dtype)
    model = TorchModel(module, "multiclass", arguments=Arguments.of(feed(data, None), module))
    expected = module.table(torch.arange(1000, 1020)).double().log_softmax(1).numpy()
    np.testing.assert_allclose(model.predict(data.inputs), expected, atol=1e-12)


def test_ids_that_float32_cannot_hold_are_refused() -> None:
    data = packed(NUMBERS, WORD)
    data.inputs[0, 4] = 2**24 + 2
    module = ByName()
    arguments = Arguments.of(feed(data, None), module)
    with pytest.raises(ModelError, match="audit with `dtype: float64`"):
        TorchModel(module, "multiclass", arguments=arguments).tensors(data.inputs, None)
    x, _ = TorchModel(module.double(), "multiclass", arguments=arguments).tensors(data.inputs, None)
    assert x[0, 4] == 2**24 + 2


def columns(*names: str) -> tuple[InputField, ...]:
    return tuple(InputField(name=name) for name in names)


class Table(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def test_columns_of_a_table_are_one_tensor_in_the_order_that_the_model_declares() -> None:
    data = packed(*columns("age", "height", "weight"))
    wanted = Signature(inputs=tuple(SignatureField(name=n, dtype="double") for n in ("weight", "age")))
    module = Table(2)
    arguments = Arguments.of(feed(data, wanted), module)
    (found,), _ = arguments(torch.tensor(data.inputs), torch.float32)
    np.testing.assert_allclose(found, data.inputs[:, [2, 0]], rtol=1e-6)
    assert arguments.notes == ("columns of the data that the model does not take were left out: height",)


@pytest.mark.parametrize("names", [("age", "x", "weight"), ("x", "height"), ("x",)])
@pytest.mark.parametrize("exported", [False, True])
def test_a_column_may_be_named_as_the_argument_is(names: tuple[str, ...], exported: bool) -> None:
    data, module = packed(*columns(*names)), Table(len(names))
    taken = program(module, (torch.zeros(2, len(names)),)) if exported else module
    found = TorchModel(taken, "multiclass", arguments=Arguments.of(feed(data, None), taken)).predict(data.inputs)
    with torch.no_grad():
        truth = module(torch.tensor(data.inputs, dtype=torch.float32)).double().log_softmax(-1).numpy()
    np.testing.assert_allclose(found, truth, atol=1e-6)


def test_columns_may_be_arguments_of_their_own() -> None:
    class Two(nn.Module):
        def forward(self, age: Tensor, height: Tensor) -> Tensor:
            return torch.stack([age, height, age + height], dim=1)

    data = packed(*columns("height", "age"))
    found = flataudit.measure(Two(), data, probes=["accuracy"], outputs="logits")
    total = np.stack([data.inputs[:, 1], data.inputs[:, 0], data.inputs.sum(1)], 1)
    assert found["validation_accuracy"].estimate == pytest.approx((total.argmax(1) == data.targets).mean())


def test_categories_are_places_or_the_numbers_that_they_are() -> None:
    words = InputField(name="colour", kind="category", categories=("blue", "red"))
    years = InputField(name="year", kind="category", categories=("1990", "2005"))
    data = packed(words, years)

    class Two(nn.Module):
        def forward(self, colour: Tensor, year: Tensor) -> Tensor:
            assert colour.dtype == torch.int64 and year.dtype == torch.float32
            return torch.stack([colour.float(), year], dim=1)

    module = Two()
    args, keywords = Arguments.of(feed(data, None), module)(torch.tensor(data.inputs), torch.float32)
    assert not args and set(keywords) == {"colour", "year"}
    np.testing.assert_array_equal(keywords["colour"], data.inputs[:, 0])
    np.testing.assert_array_equal(keywords["year"], np.array([1990, 2005])[data.inputs[:, 1].astype(int)])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Bilinear(2, 2, 3), None),
        (ByKeyword(), r"the arguments of its forward: words, numbers, got the inputs number, words; rename 'number'"),
    ],
)
def test_a_mismatch_is_explained_by_name(module: nn.Module, message: str | None) -> None:
    data = packed(InputField(name="number", shape=(2, 2)), WORD)
    if message is None:
        found = Arguments.of(feed(data, None), module)
        assert found.notes == ("inputs were matched with arguments by their place: number as input1, words as input2",)
        return
    with pytest.raises(ModelError, match=message):
        Arguments.of(feed(data, None), module)


def test_too_many_and_too_few() -> None:
    three = packed(NUMBERS, WORD, InputField(name="more", shape=(2,)))
    with pytest.raises(ModelError, match=r"forward: a, b, got the inputs numbers, words, more"):
        Arguments.of(feed(three, None), ByPlace())

    class Three(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return a

    with pytest.raises(ModelError, match="forward: a, b, c"):
        Arguments.of(feed(packed(NUMBERS, WORD), None), Three())
    with pytest.raises(ModelError, match="dictionary 'batch': numbers, words, got the inputs numbers, word"):
        known = program(Dictionary(), ({"numbers": A, "words": B},))
        Arguments.of(feed(packed(NUMBERS, InputField(name="word", shape=(3,), kind="integer")), None), known)


def test_texts_need_a_tokenizer() -> None:
    data = AuditData("v", "validation", np.array(["a", "b"]), None, None, "", kind="text")
    wanted = Signature(inputs=(SignatureField(name="text", dtype="str", shape=(-1,)),))
    found = Arguments.of(feed(data, wanted), nn.Linear(1, 1))
    assert found.cuts[0].dtype is None  # the backend refuses texts before, or makes ids of them


def test_what_a_module_takes_is_read_from_it() -> None:
    assert [one.name for one in taken_by(ByName())] == ["words", "numbers", "scale"]
    assert [(one.by, one.rest) for one in taken_by(AnyKeyword())] == [("name", True)]
    assert [one.keys for one in taken_by(program(Dictionary(), ({"numbers": A, "words": B},)))] == [
        ("numbers", "words")
    ]


def test_gradients_do_not_pass_through_rounding_and_that_is_said() -> None:
    """The same weights logged with whole-number inputs would look flat and robust: their gradient is 0 by rounding."""
    data = checked("v", "validation", np.random.default_rng(0).normal(size=(8, 3)) * 9, np.arange(8) % 2, source="test")
    net = nn.Linear(3, 2)
    whole = Arguments.of(Feed((Part(None, None, (), "int64"),)), net)
    assert whole.rounded == "all" and Arguments.of(Feed((Part(None, None, (), ""),)), net).rounded == ()
    model = TorchModel(net, "multiclass", arguments=whole)
    assert "rounded on the way" in str(why_no_input_gradients(model, data))
    x, _ = model.tensors(data.inputs, None)
    with pytest.raises(NoInputGradientError):
        model.raw_outputs(model.parameters, x.requires_grad_())


def test_whole_number_inputs_are_cut_to_what_the_type_holds_and_gaps_are_refused() -> None:
    part = Part("pixels", None, (), "uint8")
    assert part.of(np.array([[-3.2, 254.6, 300.0]])).tolist() == [[0, 255, 255]]
    with pytest.raises(ModelError, match="whole numbers of 'pixels', got NaN"):
        part.of(np.array([[np.nan]]))
