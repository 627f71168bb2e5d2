"""ONNX candidates: predictions by onnxruntime; curvature by a differentiable twin, or by steps of the weights.

Which of the three a model becomes is decided by what was tried on it, and told in the notes:
a twin that agrees with onnxruntime and can be differentiated twice (`Differentiable`); else the graph with its weights
as inputs (`Perturbable`), for zeroth-order estimates; else, quantised or without weights, answers alone (`Predictor`).
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flataudit.backends.intervals import as_stated
from flataudit.backends.onnx_answers import OnnxAnswers
from flataudit.backends.outputs import settle
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Check, Loaded
from flataudit.errors import ModelError
from flataudit.evidence import Record
from flataudit.mlmodel import MLModel, Signature, read_mlmodel
from flataudit.specs import Job, LossSpec, OutputKind, Task, TokenizerSpec

if TYPE_CHECKING:
    from flataudit.backends.onnx_session import Session

__all__ = ["OnnxBackend", "onnx_model"]

_SAMPLE = 64
_NOWHERE = Path()


class OnnxBackend(Record):
    """Loads the ``onnx`` flavour of an MLflow model folder; its own session options and providers are ignored."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The model on the job's device, checked on the sample; it is data, no code of its own runs.

        Raises:
            ModelError: damaged, not admitted, or answering wrongly; or a package that is missing.
        """
        _require("onnxruntime", "onnx")
        described = read_mlmodel(Path(job.artifact))
        return onnx_model(
            _model_file(described),
            sample,
            job.task,
            outputs=job.outputs,
            quantiles=job.quantiles,
            output=job.output,
            loss=job.loss,
            signature=described.signature,
            device=job.device,
            dtype=job.dtype,
            batch_size=job.batch_size,
            tokenizer=job.tokenizer,
            artifact=Path(job.artifact),
        )

    def check(self) -> list[Check]:
        """Versions, and what is missing for a twin."""
        lacking = [name for name in ("onnxruntime", "onnx") if find_spec(name) is None]
        if lacking:
            found = f"{' and '.join(lacking)} not installed; its candidates are refused"
            return [Check(name="backends: onnx", ok=True, found=found, remedy="pip install 'flataudit[onnx]'")]
        twin = "" if find_spec("onnx2pytorch") else ", no differentiable twins (onnx2pytorch is not installed)"
        found = f"onnxruntime {version('onnxruntime')}, onnx {version('onnx')}{twin}"
        return [Check(name="backends: onnx", ok=True, found=found)]


def onnx_model(
    source: Path | str | bytes,
    data: AuditData,
    task: Task,
    *,
    outputs: OutputKind | None = None,
    quantiles: tuple[float, ...] = (),
    output: str | None = None,
    loss: LossSpec | None = None,
    signature: Signature | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    batch_size: int | None = None,
    twin: bool = True,
    tokenizer: TokenizerSpec | None = None,
    artifact: Path = _NOWHERE,
) -> Loaded:
    """A model of an ONNX file or of its bytes, checked on a few examples.

    Args:
        source: a path, whose folder may hold external data, or the bytes of a model that has its data inside.
        data: what it will be measured on; the first 64 examples are tried.
        task: what its outputs mean.
        outputs: what it returns; None: as the sample shows (`flataudit.backends.outputs`), or values.
        quantiles: levels of the columns, where it returns quantiles.
        output: which of its outputs are the scores, by name or place; None: the only one.
        loss: what it was trained with; None: cross-entropy or squared error.
        signature: of the MLmodel file; names the columns of a table that one input takes.
        device: ``cpu`` or ``cuda``.
        dtype: that derivatives are computed in, by a twin; predictions keep the graph's own.
        batch_size: most examples a pass.
        twin: whether a differentiable twin is tried.
        tokenizer: what makes ids of texts, for a graph that takes no strings itself.
        artifact: the candidate's folder, for a tokenizer's file of its own.

    Returns:
        The model, with notes that say how it was read and which way curvature goes.

    Raises:
        ModelError: damaged, not admitted, or answering wrongly; or a package that is missing.
    """
    _require("onnxruntime", "onnx")
    from flataudit.backends.onnx_admission import admit
    from flataudit.backends.onnx_forms import Whole
    from flataudit.backends.onnx_scores import scores_of
    from flataudit.backends.onnx_session import Session, door, input_fields
    from flataudit.backends.onnx_weights import scales_by_batch
    from flataudit.backends.text import through

    model = admit(source if isinstance(source, bytes) else Path(source))
    alone = scales_by_batch(model)
    session = Session(model, device=device, one_by_one=alone)
    scores = scores_of(model, session.outputs, session.output_types, output)
    strings = any(field.dtype == "str" for field in session.inputs)
    spec = None if strings else tokenizer
    sample, of_texts = through(spec, artifact, data.head(_SAMPLE), strings=strings)
    entrance = door(session.inputs, sample, signature if spec is None else None)
    answers = OnnxAnswers(
        session, entrance, scores, task, outputs=outputs, batch_size=batch_size or _batch_size(session, sample)
    )
    notes = [f"read as ONNX by onnxruntime {version('onnxruntime')}, with inputs {input_fields(session)}"]
    if alone:
        notes.append("its quantisation takes its scale from the whole batch: each example is answered alone")
    if strings and tokenizer is not None:
        notes.append("it takes the texts themselves: the policy's tokenizer is for candidates that have none")
    stated = as_stated(answers, outputs, quantiles, sample=sample)
    if stated is not None:
        return Loaded(of_texts(stated[0]), "data_only", (*notes, *entrance.feed.notes, stated[1]))
    notes += [*entrance.feed.notes, *answers.settle(sample), *settle(answers, sample)]
    verify(answers, sample)
    whole = Whole(model, answers, sample, loss, dtype)
    found, told = whole.best(twin=twin)
    return Loaded(of_texts(found), "data_only", (*notes, *told))


def _batch_size(session: "Session", sample: AuditData) -> int:
    if session.fixed_batch is not None:
        return session.fixed_batch
    return max(32, min(4096, 64 * 2**20 // max(1, 64 * int(sample.inputs[:1].nbytes))))


def _model_file(described: MLModel) -> Path:
    """The file that the MLmodel's ``onnx`` flavour points to, inside the folder."""
    return described.inside(described.flavour("onnx").get("data"))


def _require(*packages: str) -> None:
    for name in packages:
        if find_spec(name) is None:
            remedy = "pip install 'flataudit[onnx]'"
            raise ModelError(f"the package {name}, which ONNX candidates need", got="none installed", remedy=remedy)
