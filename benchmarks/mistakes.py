"""Known mistakes of the peers, reproduced beside flataudit on the same models: ``python benchmarks/mistakes.py``.

Each is a number that looks right. What the truth is comes from a dense or closed-form Hessian in float64.
"""

import argparse
import json
import math
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import hessian_eigenthings as eigenthings
import numpy as np
import torch
from ours import first, measured, probe
from peers import Curvlinops, Eigenthings, PyHessian, seeded
from reference import truth
from subjects import Recipe, Subject, digits, mlp, subject, trained
from table import printed
from torch import Tensor, nn

import flataudit
from flataudit.evidence import Measurement

__all__ = ["FOUND"]

Finding = tuple[str, str, str, str]
"""Who, what was asked, what they said, the truth."""


def stop_rule(runs: int = 200) -> list[Finding]:
    """PyHessian stops when the running mean moves by less than 0.1 %, which says nothing about its error."""
    net = subject("tanh_mlp")
    known, said, vectors = truth(net).trace, [], []
    with seeded(0):
        peer = PyHessian(net)
        for _ in range(runs):
            samples = peer.hessian.trace()
            said.append(float(np.mean(samples)))
            vectors.append(len(samples))
        peer.close()
    found = [measured(net, probe("hessian_trace", relative_error=0.01), seed=s)["hessian_trace"] for s in range(40)]
    ours = [m.estimate or math.nan for m in found]
    held = statistics.fmean(m.interval[0] <= known <= m.interval[1] for m in found if m.interval)
    stated = statistics.fmean((m.standard_error or 0) / abs(m.estimate or 1) for m in found)
    asked = "trace of the tanh MLP"
    return [
        ("PyHessian", f"{asked}, tolerance 0.1 %", f"{_spread(said, known)} after {_range(vectors)} vectors", "0.1 %"),
        (
            "flataudit",
            f"{asked}, 1 %",
            f"{_spread(ours, known)}; {stated:.2%} stated",
            f"95 % intervals hold {held:.0%}",
        ),
    ]


def signed_spectrum(runs: int = 20) -> list[Finding]:
    """Power iteration finds the largest eigenvalue in magnitude, or a mixture of two; the largest is another thing."""
    found: list[Finding] = []
    for ends in ((99.0, -98.0), (98.0, -99.0)):
        net, asked = _saddle(*ends), f"λ_max of a spectrum from {ends[1]:g} to {ends[0]:g}"
        calls: dict[str, Callable[[int], float]] = {
            "PyHessian power iteration": lambda _, net=net: PyHessian(net).hessian.eigenvalues()[0][0],
            "hessian-eigenthings power iteration": lambda seed, net=net: eigenthings.power_iteration_one(
                Eigenthings(net).operator, seed=seed
            )[0],
            "hessian-eigenthings lanczos (LM, its default)": lambda seed, net=net: float(
                eigenthings.lanczos(Eigenthings(net).operator, k=2, max_iter=20, seed=seed).eigenvalues[0]
            ),
        }
        for name, call in calls.items():
            with seeded(0):
                said = [call(seed) for seed in range(runs)]
            found.append((name, asked, _values(said), f"{ends[0]:g}"))
        found.append(("flataudit", asked, _told(first(net.model, net.inputs, net.targets, "spectrum")), f"{ends[0]:g}"))
    return found


def weight_norm() -> list[Finding]:
    """Torch's fused weight norm has a wrong second derivative, without a word; who trusts it is wrong."""
    found: list[Finding] = []
    for kind, wrap in (("parametrised", nn.utils.parametrizations.weight_norm), ("old", nn.utils.weight_norm)):
        net = _normed(wrap)
        hessian = _plain_hessian(net.model)
        known = float(hessian.trace())
        asked = f"Hessian of an MLP with weight_norm ({kind})"
        for peer in (PyHessian, Curvlinops, Eigenthings):
            found.append((peer.name, asked, _compared(peer, net, hessian), f"trace {known:.4g}"))
        ours = first(net.model, net.inputs, net.targets, "hessian_trace", relative_error=0.01)
        found.append(("flataudit", asked, f"trace {_told(ours)}", f"trace {known:.4g}"))
    return found


def unequal_batches() -> list[Finding]:
    """The mean of batch means is not the mean over examples when the last batch is short."""
    net = subject("tanh_mlp")
    known, asked = truth(net).lambda_max, "λ_max over 1,797 examples in batches of 256"
    said = []
    with seeded(0):
        for kind in (PyHessian, Curvlinops, Eigenthings):
            said.append((kind.name, kind(net, 256).largest(1e-4).value))
    found = flataudit.measure(
        net.model, net.inputs, net.targets, probes=[probe("spectrum", relative_error=1e-4)], batch_size=256
    )
    said.append(("flataudit", found["lambda_max"].estimate or math.nan))
    return [(name, asked, f"{value:.5g} ({value / known - 1:+.2%})", f"{known:.5g}") for name, value in said]


FOUND: dict[str, Callable[[], list[Finding]]] = {
    "stop rule on the running mean": stop_rule,
    "eigenvalues of both signs": signed_spectrum,
    "weight_norm": weight_norm,
    "batch means not weighted by examples": unequal_batches,
}


class Saddle(nn.Module):
    """F(θ) = ¾ + ½ Σ dᵢ θᵢ² for every example: at θ = 0 and target ¼ the squared error has the Hessian diag d."""

    def __init__(self, curvatures: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros_like(curvatures))
        self.register_buffer("curvatures", curvatures)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 1)`` to ``(n,)``."""
        return (0.75 + 0.5 * (self.curvatures * self.theta.square()).sum()).expand(len(x))


def _saddle(high: float, low: float) -> Subject:
    inner = torch.linspace(-50, 50, 98)
    model = Saddle(torch.cat([torch.tensor([high, low]), inner]))
    return Subject("saddle", "saddle", model, torch.zeros(8, 1), torch.full((8,), 0.25), 0.0, "")


def _normed(wrap: Callable[[nn.Module], nn.Module]) -> Subject:
    """A trained tanh MLP whose layers are weight-normed afterwards, which leaves its function as it is."""
    inputs, targets = digits()
    small = Recipe("64-12-10", lambda: mlp(64, 12, 10, activation=nn.Tanh), epochs=20)
    model = trained(small, inputs, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for index in (0, 2):
            wrap(model[index])
    return Subject("normed", "normed", model.eval(), inputs[:200], targets[:200], 0.0, "")


def _plain_hessian(model: nn.Module) -> Tensor:
    """The Hessian of the same function with g·v/‖v‖ written out, densely, in float64."""
    inputs, targets = digits()
    x, y = inputs[:200].double(), targets[:200]
    named = {name: p.detach().double() for name, p in model.named_parameters()}
    flat = torch.cat([p.flatten() for p in named.values()])

    def loss(vector: Tensor) -> Tensor:
        parts = dict(zip(named, torch.split(vector, [p.numel() for p in named.values()]), strict=True))
        out = x
        for layer in ("0", "2"):
            mine = {k: v.view(named[k].shape) for k, v in parts.items() if k.startswith(f"{layer}.")}
            bias = next(v for k, v in mine.items() if k.endswith("bias"))
            gain, direction = (v for k, v in sorted(mine.items()) if not k.endswith("bias"))
            out = nn.functional.linear(out, gain * direction / direction.norm(dim=1, keepdim=True), bias)
            out = out.tanh() if layer == "0" else out
        return nn.functional.cross_entropy(out, y)

    return torch.func.hessian(loss)(flat)


def _compared(kind: type[PyHessian | Curvlinops | Eigenthings], net: Subject, known: Tensor) -> str:
    """The Hessian that a library's products make of every basis vector: no random error is left."""
    try:
        with seeded(0):
            found = _whole(kind, net).double()
    except RuntimeError as error:
        return f"raises: {str(error).splitlines()[0][:60]} …"
    off = float((found - known).norm() / known.norm())
    return f"trace {float(found.trace()):.4g}, ‖Ĥ − H‖ = {off:.0%} of ‖H‖"


def _whole(kind: type[PyHessian | Curvlinops | Eigenthings], net: Subject) -> Tensor:
    parameters = list(net.model.parameters())
    basis = torch.eye(sum(p.numel() for p in parameters))
    peer = kind(net)
    if isinstance(peer, Curvlinops):
        return torch.cat([(peer.operator @ rows.T).T for rows in basis.split(64)])
    if isinstance(peer, Eigenthings):
        return torch.stack([peer.operator.matvec(row) for row in basis])
    inner, sizes = peer.hessian, [p.numel() for p in parameters]
    rows = []
    for row in basis:
        split = [part.view(p.shape) for part, p in zip(row.split(sizes), parameters, strict=True)]
        product = torch.autograd.grad(inner.gradsH, inner.params, split, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in product]))
    peer.close()
    return torch.stack(rows)


def _told(found: Measurement) -> str:
    if found.estimate is None:
        return f"{found.outcome}: {found.reason}"
    return f"{found.estimate:.4g}" + (f" ± {found.standard_error:.2g}" if found.standard_error else "")


def _spread(values: list[float], known: float) -> str:
    off = [value / known - 1 for value in values]
    return f"RMS error {math.sqrt(statistics.fmean(e**2 for e in off)):.2%}, worst {max(map(abs, off)):.1%}"


def _range(values: list[int]) -> str:
    return f"{min(values)} to {max(values)}"


def _values(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:.1f} to {ordered[-1]:.1f} over {len(values)} starts, median {statistics.median(values):.1f}"


def main() -> None:
    """Print them, and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    whole = {}
    for title, find in FOUND.items():
        whole[title] = find()
        print(f"\n### {title}\n{(find.__doc__ or '').strip()}\n", flush=True)
        print(printed(("who", "asked", "said", "truth, or what is claimed"), whole[title]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
