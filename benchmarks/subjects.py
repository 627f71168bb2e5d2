"""The four networks of the comparison, trained here on scikit-learn's digits from explicit seeds.

Weights are kept under ``benchmarks/.cache`` (which ignores itself) with a digest of how they were made, so that the
second run starts at once. Nothing is downloaded. Curvature is that of the training loss, on all 1,797 digits.
"""

import hashlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

__all__ = ["CACHE", "Recipe", "Subject", "cache", "digits", "initialised", "mlp", "subject", "trained"]

CACHE = Path(__file__).parent / ".cache"


class Block(nn.Module):
    """Two 3×3 convolutions with batch norm, and a 1×1 shortcut where the shape changes (He et al. 2016)."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, wider, 3, stride, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.ReLU(),
            nn.Conv2d(wider, wider, 3, 1, 1, bias=False),
            nn.BatchNorm2d(wider),
        )
        same = stride == 1 and channels == wider
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider))
        )
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` to ``(n, wider, h / stride, w / stride)``."""
        return self.last(self.body(x) + self.shortcut(x))


class Encoder(nn.Module):
    """Each of a digit's 8 rows is a token: linear embedding, learned positions, 2 encoder layers, mean, linear."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.zeros(8, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=False
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 64)`` to logits ``(n, 10)``."""
        return self.head(self.layers(self.embed(x.view(-1, 8, 8)) + self.position).mean(dim=1))


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), activation()]
    return nn.Sequential(*layers[:-1])


def relu_mlp() -> nn.Module:
    """64-128-128-10, 26,122 parameters."""
    return mlp(64, 128, 128, 10)


def tanh_mlp() -> nn.Module:
    """64-32-10, 2,410 parameters: small enough for a dense Hessian."""
    return mlp(64, 32, 10, activation=nn.Tanh)


def resnet() -> nn.Module:
    """ResNet-8 with widths 16, 32, 64, 77,754 parameters, on digits upsampled to 16×16."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 16, 16)),
        nn.Conv2d(1, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained: Adam, shuffled mini-batches, weight decay 0."""

    title: str
    make: Callable[[], nn.Module]
    epochs: int
    rate: float = 1e-3
    batch: int = 64
    side: int = 8
    """Digits are ``side × side``, flattened."""
    seed: int = 0


RECIPES = {
    "relu_mlp": Recipe("ReLU MLP 64-128-128-10", relu_mlp, epochs=15),
    "resnet": Recipe("ReLU ResNet-8, batch norm, 16×16", resnet, epochs=6, side=16),
    "tanh_mlp": Recipe("tanh MLP 64-32-10", tanh_mlp, epochs=40),
    "transformer": Recipe("2-layer transformer encoder", Encoder, epochs=30),
}


@dataclass(frozen=True)
class Subject:
    """A trained network in evaluation mode, with the examples that its curvature is of."""

    name: str
    title: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor
    accuracy: float
    """Share of these examples that it has right."""
    digest: str
    """Of its weights: what is remembered about it (a reference, a variance) is remembered under this."""

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.model.parameters())


def digits(side: int = 8) -> tuple[Tensor, Tensor]:
    """Inputs ``(1797, side²)`` in 0..1 and classes ``(1797,)``; larger sides by bilinear interpolation."""
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    if side != 8:
        images = nn.functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    return images.flatten(1), torch.tensor(bunch.target, dtype=torch.int64)


def initialised(model: nn.Module, seed: int) -> nn.Module:
    """Uniform in ±√(3/fan-in) gains as torch's default for matrices, zero biases; norms stay at one and zero."""
    source = torch.Generator().manual_seed(seed)
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    kept = {id(p) for part in model.modules() if isinstance(part, norms) for p in part.parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) in kept:
                continue
            if parameter.dim() < 2:
                parameter.zero_()
                continue
            bound = math.sqrt(3 / parameter[0].numel())
            parameter.copy_((torch.rand(parameter.shape, generator=source) * 2 - 1) * bound)
    return model


def trained(recipe: Recipe, inputs: Tensor, targets: Tensor) -> nn.Module:
    """The network after training, in evaluation mode."""
    model = initialised(recipe.make(), recipe.seed).train()
    source = torch.Generator().manual_seed(recipe.seed + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    for _ in range(recipe.epochs):
        for index in torch.randperm(len(inputs), generator=source).split(recipe.batch):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(inputs[index]), targets[index]).backward()
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


def cache(name: str) -> Path:
    """A path under ``benchmarks/.cache``, which git ignores."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n", encoding="utf-8")
    return CACHE / name


def subject(name: str) -> Subject:
    """One of ``relu_mlp``, ``resnet``, ``tanh_mlp``, ``transformer``; trained once, then read from the cache."""
    recipe = RECIPES[name]
    inputs, targets = digits(recipe.side)
    made = hashlib.sha256(repr((name, torch.__version__)).encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    path = cache(f"{name}-{made}.pt")
    if path.exists():
        model = recipe.make()
        model.load_state_dict(torch.load(path, weights_only=True))
        model.eval()
    else:
        model = trained(recipe, inputs, targets)
        torch.save(model.state_dict(), path)
    with torch.no_grad():
        accuracy = (model(inputs).argmax(dim=1) == targets).float().mean().item()
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()[:12]
    return Subject(name, recipe.title, model, inputs, targets, accuracy, digest)
