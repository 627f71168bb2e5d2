"""The same corruptions, noise and attacks to the last bit in another process, batch size and order."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from flataudit.attacks.purse import Purse
from flataudit.attacks.region import Region, Room
from flataudit.attacks.search import search
from flataudit.attacks.slopes import Chords, sampled_slopes
from flataudit.attacks.victims import Victims
from flataudit.corruptions.catalogue import KINDS, SEVERITIES, Suite
from flataudit.corruptions.samples import sample
from flataudit.specs import Budget
from flataudit.testing.subjects import LinearModel

N = 24


class Rowwise(LinearModel):
    """One example at a time: a product of matrices may round otherwise in another batch."""

    def predict(self, inputs):
        return np.concatenate([super(Rowwise, self).predict(row[None]) for row in inputs])


def everything(order: list[int], size: int) -> dict[str, str]:
    """Digests of all that is made of the first examples, which are gone through in an order and in batches."""
    found = {f"{data}/{kind}": _corrupted(data, kind, order, size) for data, kinds in KINDS.items() for kind in kinds}
    rows = np.random.default_rng(0).normal(size=(N, 5))
    model, chords = Rowwise("multiclass", 5), Chords.of(Room(np.ones(()), np.zeros(()), np.ones(())), 0.1, (5,))
    answers = model.predict(rows)
    fooled, slopes = np.zeros(N, dtype=bool), np.zeros(N)
    for start in range(0, N, size):
        part = np.array(order[start : start + size])
        some = Victims(rows[part], answers.argmax(axis=1)[part], part, answers[part])
        region = Region(Room(np.ones(()), np.full((), -9.0), np.full((), 9.0)), "linf", 0.3)
        purse = Purse(model, Budget(), N)
        fooled[part] = search(model, some, region, seed=0, proposals="coordinate", queries=8, purse=purse)
        settings = {"seed": 0, "directions": 3, "may_go_on": lambda: True}
        slopes[part] = sampled_slopes(model, rows[part], part, chords, **settings)
    return found | {"search": _digest(fooled), "slopes": _digest(slopes)}


def _corrupted(data: str, kind: str, order: list[int], size: int) -> str:
    inputs = sample(data)[:N]
    suite, rows = Suite.of(inputs, data), []
    for severity in SEVERITIES:
        made = dict.fromkeys(range(N))
        for start in range(0, N, size):
            part = np.array(order[start : start + size])
            changed = suite.corrupt(inputs[part], kind, severity, seed=3, indices=part)
            made |= dict(zip(part.tolist(), changed, strict=True))
        rows += [str(row).encode() if data == "text" else row.tobytes() for row in made.values()]
    return hashlib.sha256(b"".join(rows)).hexdigest()


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def test_another_process_order_and_batch_size_give_the_same_bits():
    backwards = [*range(N)][::-1]
    script = f"import json, test_processes as t; print(json.dumps(t.everything({backwards}, 7)))"
    surroundings = os.environ | {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, env=surroundings, capture_output=True, check=True
    )
    other, here = json.loads(done.stdout), everything([*range(N)], N)
    assert len(here) == 44 and {name for name in here if here[name] != other[name]} == set()
