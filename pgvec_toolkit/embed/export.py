"""A model of sentence-transformers as an ONNX file: the whole of it, from tokens to the vector of a text."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pgvec_toolkit.embed.model import loaded, local_path
from pgvec_toolkit.embed.onnx import POOLED, OnnxEmbedder
from pgvec_toolkit.embed.sentence_transformer import SentenceTransformerEmbedder
from pgvec_toolkit.embed.spec import spec_of
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, MissingDependency, first_line

# Of different lengths: were one of them burnt into the file, the others' vectors would show it.
_TRIED = ("keys", "Rotate the keys every ninety days.", "The express to Paris departs from platform nine. " * 6)
_OPSET = 17
_FLOAT, _INT8 = "model.onnx", "model_qint8.onnx"
_ALIKE = 0.9999  # least cosine of a file that is not quantised


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        spec: that loads it.
        file: that was written.
        size: of it, in bytes.
        similarity: least cosine between its vectors and the model's own, of some texts.
    """

    spec: str
    file: str
    size: int
    similarity: float


def export_onnx(name: str, folder: Path, *, int8: bool = False) -> Exported:
    """Write a model into a folder, which `OnnxEmbedder` and FastEmbed load; other files in it stay.

    Args:
        name: of the model, or the path of its folder.
        folder: where the file goes into onnx/, and tokenizer and configuration beside that.
        int8: whether to quantise the weights to 8 bits, with 7 of them in use: on older CPUs more would overflow.

    Raises:
        EmbeddingError: it cannot be written, or its vectors are not the model's.
        ConfigurationError: the folder is the model's own.
    """
    _needed(int8)
    embedder = SentenceTransformerEmbedder(name)
    folder = folder.absolute()
    if folder.exists() and folder.samefile(local_path(embedder.source)):
        raise ConfigurationError(f"{folder} is the model's own folder, whose configuration would be lost: give another")
    # Its attention is written out in full; the faster ones are not of ONNX.
    model = loaded(embedder.kind, embedder.source, EmbeddingError, model_kwargs={"attn_implementation": "eager"})
    file = f"onnx/{_INT8 if int8 else _FLOAT}"
    folder.mkdir(parents=True, exist_ok=True)
    # What is there stays as it is until what is new has been tried.
    with TemporaryDirectory(dir=folder) as unquantised, TemporaryDirectory(dir=folder) as scratch:
        written = Path(scratch) / file
        written.parent.mkdir()
        traced = Path(unquantised) / _FLOAT if int8 else written
        try:
            _trace(model, traced)
        except Exception as error:  # of PyTorch, of the model's own code
            raise EmbeddingError(f"model {name} cannot be written as ONNX: {first_line(error)}") from error
        if int8:
            _quantise(traced, written)
        _beside(model, embedder, Path(scratch))
        made = OnnxEmbedder(scratch, file=file)
        similarity = float((made.embed_documents(_TRIED) * embedder.embed_documents(_TRIED)).sum(axis=1).min())
        if not int8 and similarity < _ALIKE:
            raise EmbeddingError(
                f"the ONNX file of model {name} made other vectors (cosine {similarity:.5f}): not kept"
            )
        _move(Path(scratch), folder)
    target = folder / file
    spec = spec_of("", str(folder), {"backend": "onnx", "file": file})
    return Exported(spec, str(target), target.stat().st_size, similarity)


def _move(source: Path, target: Path) -> None:
    """Move all files of a folder into another one, over those of the same names."""
    for each in source.rglob("*"):
        if each.is_file():
            to = target / each.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            each.replace(to)


def _needed(int8: bool) -> None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingDependency("onnxruntime", "onnx") from error
    if int8:
        try:
            import onnx  # noqa: F401
        except ImportError as error:
            raise MissingDependency("onnx", "onnx") from error


def _trace(model: Any, path: Path) -> None:
    import torch

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, names: list[str]) -> None:
            super().__init__()
            self.model = model
            self.names = names

        def forward(self, *given: Any) -> Any:
            features: dict[str, Any] = dict(zip(self.names, given, strict=True))
            for module in self.model:
                features = features if type(module).__name__ == "Normalize" else module(features)
            return features[POOLED]

    model = model.float().to("cpu").eval()
    example = model.tokenizer(list(_TRIED[1:]), padding=True, truncation=True, return_tensors="pt")
    names = list(example)
    axes = {each: {0: "texts", 1: "tokens"} for each in names} | {POOLED: {0: "texts"}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing; whether it went well is tried
        torch.onnx.export(
            Whole(names),
            tuple(example[each] for each in names),
            str(path),
            input_names=names,
            output_names=[POOLED],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,  # the other way takes four times as long, and two packages more
        )


def _quantise(source: Path, target: Path) -> None:
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it recommends a preprocessing that changes nothing here
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    finally:
        root.setLevel(before)


def _beside(model: Any, embedder: SentenceTransformerEmbedder, folder: Path) -> None:
    """Write tokenizer and configuration; without weights, and without modules, for these are in the file."""
    model.tokenizer.save_pretrained(str(folder))
    model[0].model.config.save_pretrained(str(folder))
    sequence = int(model.max_seq_length or 512)
    lower = bool(getattr(model[0], "do_lower_case", False))
    prompts = embedder.details["prompts"]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.pop("max_length", None)  # of a truncation long ago, which FastEmbed would take for the model's
    for name, content in {
        "sentence_bert_config.json": {"max_seq_length": sequence, "do_lower_case": lower},
        "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "prompts": prompts},
        "tokenizer_config.json": {**tokenizer, "model_max_length": sequence},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
