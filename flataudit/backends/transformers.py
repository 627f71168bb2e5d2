"""Candidates of MLflow's ``transformers`` flavour: the model and its tokenizer from their own folder, offline.

The classes are those of the installed package, found by the names in ``config.json``; code that a configuration brings
(``auto_map``) runs only if the job trusts it. Weights come from safetensors; a pickled ``pytorch_model.bin`` asks for
trust too. Nothing is fetched, and no weight is made up: one that the file lacks would be random.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from flataudit.backends.arguments import Arguments
from flataudit.backends.class_order import column_of_each_class
from flataudit.backends.feeding import feed
from flataudit.backends.outputs import settle
from flataudit.backends.text import prepared
from flataudit.backends.torch_model import TorchModel
from flataudit.backends.verification import verify
from flataudit.contracts import AuditData, Loaded
from flataudit.errors import ModelError, UntrustedError
from flataudit.evidence import Record
from flataudit.mlmodel import MLModel, read_mlmodel
from flataudit.specs import Job, TokenizerSpec

__all__ = ["TransformersBackend"]

_AUTOMATIC: Mapping[str, str] = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForImageClassification": "AutoModelForImageClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
"""By the ending of a class's name; each returns ``logits``."""
_LONGEST = 512
"""Tokens of a text, unless the policy's tokenizer says otherwise."""
_MOST_BYTES = 2**22
"""Of a configuration."""
_REMEDY = "log it again with mlflow.transformers.log_model"


@dataclass(frozen=True)
class _Folder:
    """What is in the model's folder."""

    path: Path
    config: Mapping[str, JsonValue]
    trust: Literal["data_only", "code_bearing"]


class TransformersBackend(Record):
    """Loads the flavour ``transformers``: classifiers of sequences, tokens and images, and causal language models."""

    def load(self, job: Job, sample: AuditData) -> Loaded:
        """The model in evaluation mode on the job's device, checked on the sample.

        Inputs are token ids ``(n, length)``, fields named as the model's arguments (``input_ids``,
        ``attention_mask``), or texts, which the candidate's own tokenizer makes into ids; the policy's is for
        candidates that have none. Without a mask the padding after a text's end is masked.

        Raises:
            ModelError: damaged, without its weights, of another kind, or answering wrongly.
            UntrustedError: loading would run its code.
        """
        described = read_mlmodel(Path(job.artifact))
        folder = _folder(described, job)
        module, notes = _loaded(folder, job)
        if sample.kind == "text":
            spec, told = _tokenizer(job.tokenizer, described, folder)
            job, notes = job.model_copy(update={"tokenizer": spec}), (*notes, *told)
        ids, of_texts = prepared(job, sample)
        _refuse_other_order(folder.config, sample)
        # The signature of this flavour is that of a pipeline: strings in, labels out.
        arguments = Arguments.of(feed(ids, None), module)
        model = TorchModel(
            module,
            job.task,
            outputs=job.outputs,
            loss=job.loss,
            batch_size=job.batch_size,
            example_bytes=int(ids.inputs[:1].nbytes) * 512,
            arguments=arguments,
            output=job.output or "logits",
        )
        notes += (*arguments.notes, *settle(model, ids))
        verify(model, ids)
        return Loaded(of_texts(model), folder.trust, notes)


def _folder(described: MLModel, job: Job) -> _Folder:
    settings = described.flavour("transformers")
    if settings.get("peft_adaptor") is not None:
        raise ModelError("whole weights", got="an adapter of a base model", remedy="merge them: merge_and_unload()")
    if settings.get("model_binary") is None:
        got, remedy = "a name on the Hugging Face hub", "log it with save_pretrained=True"
        raise ModelError("the model's own weights in the artifact", got=got, remedy=remedy)
    path = described.inside(settings["model_binary"])
    if not path.is_dir():
        raise ModelError("a folder with config.json", got="a file", remedy=_REMEDY)
    config, brings_code = _json(path / "config.json"), ""
    if "auto_map" in config:
        brings_code = "a configuration that brings code of its own (auto_map)"
    if not any(path.glob("*.safetensors")):
        brings_code = brings_code or "weights that are pickled, or none"
    if brings_code and not job.trust:
        remedy = "save it with safe_serialization=True and classes of the package, or pass --trust"
        raise UntrustedError("a model that is data only", got=brings_code, remedy=remedy)
    _refuse_other_files(path)
    return _Folder(path, config, "code_bearing" if brings_code else "data_only")


def _refuse_other_files(path: Path) -> None:
    """What would make transformers read more than the weights in this folder."""
    if (path / "adapter_config.json").exists():
        raise ModelError("whole weights", got="adapter_config.json", remedy="merge them: merge_and_unload()")
    for index in path.glob("*.index.json"):
        files = _json(index).get("weight_map")
        for name in set(files.values()) if isinstance(files, dict) else {None}:
            if not isinstance(name, str) or Path(name).name != name or not (path / name).is_file():
                raise ModelError("an index of files beside it", got=repr(name)[:80], remedy=_REMEDY)


def _json(file: Path) -> Mapping[str, JsonValue]:
    try:
        if file.stat().st_size > _MOST_BYTES and not file.name.endswith((".index.json", "tokenizer.json")):
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file.name} in the artifact", got=_told(error), remedy=_REMEDY) from error
    return found


def _loaded(folder: _Folder, job: Job) -> tuple[nn.Module, tuple[str, ...]]:
    named = folder.config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "none"
    automatic = next((auto for ending, auto in _AUTOMATIC.items() if name.endswith(ending)), None)
    if automatic is None:
        expected = f"an architecture that ends in {', '.join(_AUTOMATIC)}"
        raise ModelError(expected, got=name[:80], remedy="log the classifier, not its encoder alone")
    try:
        package = cast("Any", importlib.import_module("transformers"))
    except ImportError as error:
        remedy = "pip install 'flataudit[transformers]'"
        raise ModelError("the package transformers for this candidate", got=_told(error), remedy=remedy) from error
    with _quiet(package):
        try:
            module, info = getattr(package, automatic).from_pretrained(
                folder.path,
                local_files_only=True,
                trust_remote_code=job.trust and "auto_map" in folder.config,
                use_safetensors=any(folder.path.glob("*.safetensors")),
                output_loading_info=True,
                attn_implementation="eager",  # the fast kernels have no second derivative
                dtype="auto",
            )
        except Exception as error:
            remedy = "check that it loads with this version of transformers (and that its torchvision, if any, does)"
            raise ModelError(f"a {name} that loads here", got=_told(error), remedy=remedy) from error
    lacking = sorted({str(key) for key in (*info["missing_keys"], *info["mismatched_keys"])})
    if lacking or info.get("error_msgs"):
        got = f"{len(lacking)} that are missing or of another shape: {', '.join(lacking[:6])}"
        raise ModelError("every weight in the artifact", got=got, remedy="log the model after its training")
    if job.dtype is not None:
        module = module.to(getattr(torch, job.dtype))
    module.config.use_cache = False
    module.register_forward_pre_hook(_mask_padding, with_kwargs=True)
    unused = sorted(map(str, info["unexpected_keys"]))
    notes = (f"weights that the model does not use: {', '.join(unused[:6])}",) if unused else ()
    return module.to(job.device).eval(), notes


@contextmanager
def _quiet(package: Any) -> Iterator[None]:
    """No progress bars and no advice while it loads."""
    logging = package.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _mask_padding(
    module: nn.Module, args: tuple[object, ...], keywords: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]] | None:
    """Ids without a mask get one: 0 for the padding after a text's end, never for its first token."""
    ids = args[0] if args else keywords.get("input_ids")
    padding = getattr(cast("Any", module).config, "pad_token_id", None)
    whole = isinstance(ids, Tensor) and not ids.is_floating_point() and ids.dim() == 2
    if not whole or not isinstance(padding, int) or len(args) > 1 or keywords.get("attention_mask") is not None:
        return None
    real = (cast("Tensor", ids) != padding).long()
    real[:, 0] = 1
    return args, {**keywords, "attention_mask": real.flip(1).cummax(dim=1).values.flip(1)}


def _tokenizer(
    declared: TokenizerSpec | None, described: MLModel, folder: _Folder
) -> tuple[TokenizerSpec, tuple[str, ...]]:
    """The candidate's own tokenizer, else the policy's; and what to say of the choice.

    Ids of another vocabulary would be answered too, and wrongly. A policy that names the candidate's own file
    (`in_artifact`) says how it is to be used, and is followed.
    """
    root = Path(described.folder).resolve()
    found = next((one for one in _places(root, folder) if (one / "tokenizer.json").is_file()), None)
    if declared is not None and (found is None or (declared.in_artifact and (root / declared.in_artifact).is_file())):
        return declared, ()
    if found is None:
        remedy = "log the pipeline with a fast tokenizer, declare `tokenizer:` in the policy, or give token ids"
        raise ModelError("a tokenizer.json in the artifact, for texts", got="none", remedy=remedy)
    spec = _own_tokenizer(root, found, folder)
    told = f"texts were cut or padded to {spec.max_length} tokens by the candidate's own tokenizer"
    return spec, (told if declared is None else f"{told}; the policy's is for candidates that have none",)


def _places(root: Path, folder: _Folder) -> tuple[Path, ...]:
    """Where a candidate's tokenizer lies."""
    return root / "components" / "tokenizer", folder.path


def _own_tokenizer(root: Path, found: Path, folder: _Folder) -> TokenizerSpec:
    """The candidate's ``tokenizer.json``, with its own padding and the longest text that the model takes."""
    settings = _json(found / "tokenizer_config.json") if (found / "tokenizer_config.json").is_file() else {}
    named = ("max_position_embeddings", "n_positions")
    lengths = [settings.get("model_max_length"), *(folder.config.get(name) for name in named), _LONGEST]
    padding = folder.config.get("pad_token_id")
    return TokenizerSpec(
        use="tokenizers",
        max_length=min(int(one) for one in lengths if isinstance(one, int | float) and one > 0),
        padding=padding if isinstance(padding, int) and padding >= 0 else 0,
        in_artifact=str((found / "tokenizer.json").relative_to(root)),
    )


def _refuse_other_order(config: Mapping[str, JsonValue], data: AuditData) -> None:
    """The configuration may name its classes; where these are the data's, their order must be too."""
    named = config.get("id2label")
    if not isinstance(named, dict) or not data.class_names:
        return
    labels = [str(named[key]) for key in sorted(named, key=lambda key: int(key) if key.isdecimal() else 0)]
    if set(labels) != set(data.class_names) or len(labels) != len(data.class_names):
        return
    if column_of_each_class(labels, data) != tuple(range(len(labels))):
        expected = f"classes in the order of the data ({', '.join(data.class_names[:6])})"
        remedy = "number the classes alike in data and model (id2label)"
        raise ModelError(expected, got=", ".join(labels[:6]), remedy=remedy)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
