"""Losses against PyTorch's, and the factors of their curvature against second derivatives by autograd."""

import pytest
import torch
from torch import Tensor, nn

from flataudit.curvature.losses import BinaryCrossEntropy, CrossEntropy, Huber, Loss, SquaredError, make_loss
from flataudit.errors import ConfigurationError, ModelError
from flataudit.specs import LossSpec

SOURCE = torch.Generator().manual_seed(0)
LOGITS = torch.randn(7, 4, generator=SOURCE, dtype=torch.float64) * 3
CLASSES = torch.tensor([0, 1, 2, 3, 3, 1, 0])
MARKS = torch.randint(0, 2, (7, 4), generator=SOURCE)
CASES: dict[str, tuple[Loss, Tensor, Tensor]] = {
    "classes": (CrossEntropy(), LOGITS, CLASSES),
    "weighted, smooth": (CrossEntropy((0.5, 2.0, 1.0, 3.0), 1, 0.2), LOGITS, CLASSES),
    "saturated": (CrossEntropy(), LOGITS * 1e3, CLASSES),
    "labels": (BinaryCrossEntropy((1.0, 2.0, 0.5, 1.0), 0.1), LOGITS, MARKS),
    "values": (SquaredError(), LOGITS, LOGITS.flip(0)),
    "one value": (SquaredError(), LOGITS[:, 0], LOGITS[:, 1]),
    "huber": (Huber(0.7), LOGITS, LOGITS.flip(0)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_factor_is_that_of_the_second_derivative(case: str) -> None:
    loss, outputs, targets = CASES[case]
    factors = loss.factors(outputs, targets)
    assert len(factors) == loss.columns(outputs) and bool(factors.isfinite().all())
    for i in range(len(outputs)):
        whole = torch.autograd.functional.hessian(
            lambda f, i=i: loss.terms(f[None], targets[i : i + 1]).sum(), outputs[i].clone()
        )
        rows = factors[:, i].reshape(len(factors), -1)
        torch.testing.assert_close(rows.T @ rows, whole.reshape(rows.shape[1], -1), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("case", ["classes", "weighted, smooth", "labels", "values", "huber"])
def test_mixtures_have_the_same_second_moments(case: str) -> None:
    """E[Sε (Sε)ᵀ] over all sign patterns is S Sᵀ."""
    loss, outputs, targets = CASES[case]
    patterns = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    mixed = torch.stack([loss.mixed(outputs, targets, row.expand_as(outputs)) for row in patterns])
    factors = loss.factors(outputs, targets)
    torch.testing.assert_close(
        torch.einsum("kni,knj->nij", mixed, mixed) / len(patterns), torch.einsum("kni,knj->nij", factors, factors)
    )


def test_means_are_those_of_torch() -> None:
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    theirs = nn.functional.cross_entropy(LOGITS, CLASSES, weight, ignore_index=1, label_smoothing=0.2)
    torch.testing.assert_close(CASES["weighted, smooth"][0].mean(LOGITS, CLASSES), theirs)
    theirs = nn.functional.huber_loss(LOGITS, LOGITS.flip(0), delta=0.7)
    torch.testing.assert_close(Huber(0.7).mean(LOGITS, LOGITS.flip(0)), theirs)


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigurationError, match="4 label weights"):
        CrossEntropy((1.0, 2.0)).mean(LOGITS, CLASSES)
    with pytest.raises(ModelError, match="shape of the outputs"):
        SquaredError().mean(LOGITS, CLASSES.double())
    with pytest.raises(ConfigurationError, match="multiclass"):
        make_loss(LossSpec(use="mse"), "multiclass")
