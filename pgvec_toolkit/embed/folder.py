"""A model's folder, as sentence-transformers writes it, read without sentence-transformers."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgvec_toolkit.embed.model import local_path
from pgvec_toolkit.embed.tokens import unbounded
from pgvec_toolkit.errors import EmbeddingError, MissingDependency, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SAMPLES, _SAMPLE = 64, 1 << 16
_LONGEST = 512  # tokens, of a model that does not say
_UNKNOWN = 1 << 30  # transformers writes more than that for a model without a limit
_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


DATA = "?data*"  # of the files beside a large one: model.onnx_data, model.onnx.data


class ModelFolder:
    """A folder that holds a model, its tokenizer and its configuration; what has been read is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def find(cls, source: str, files: Sequence[str], revision: str | None = None) -> ModelFolder:
        """Return the folder of a model; one on the hub is downloaded.

        Args:
            source: folder, or name on the hub.
            files: patterns of files that are needed beside configuration and tokenizer.
            revision: on the hub.
        """
        path = Path(source if revision else local_path(source))
        if path.is_dir():
            return cls(path)
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise MissingDependency("huggingface-hub", "onnx") from error
        try:
            return cls(Path(snapshot_download(source, revision=revision, allow_patterns=["*.json", *files])))
        except (OSError, ValueError) as error:
            raise EmbeddingError(
                f"cannot load model {source}: {first_line(error)}. Give the path of a folder that holds it, "
                "or a name that the model hub knows while it can be reached"
            ) from error

    def file(self, name: str | None, usual: Sequence[str], suffix: str) -> Path:
        """Return the file of a model: the named one, a usual one, or the only one with a suffix."""
        if name is not None:
            if not (self.path / name).is_file():
                raise EmbeddingError(f"there is no file {name} in {self.path}{self._others(suffix)}")
            return self.path / name
        for each in usual:
            if (self.path / each).is_file():
                return self.path / each
        found = sorted(self.path.rglob(f"*{suffix}"))
        if len(found) != 1:
            raise EmbeddingError(
                f"there is no {' and no '.join(usual)} in {self.path}{self._others(suffix)}. Make one of a model: "
                "pgvec models export NAME FOLDER"
            )
        return found[0]

    def _others(self, suffix: str) -> str:
        found = sorted(str(each.relative_to(self.path)) for each in self.path.rglob(f"*{suffix}"))
        return f", but {', '.join(found)}: say which, as ?file=…" if found else ""

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON object; an empty one if there is no such file."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise EmbeddingError(f"{self.path / name} is no JSON: {error}") from error
        return found if isinstance(found, dict) else {"": found}

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The model's own prompts, by their names."""
        return {
            name: text or "" for name, text in self.read("config_sentence_transformers.json").get("prompts", {}).items()
        }

    @cached_property
    def modules(self) -> list[str]:
        """Names of what a text goes through: Transformer, Pooling, Normalize; none if the folder does not say."""
        return [each["type"].rpartition(".")[2] for each in self.read("modules.json").get("", [])]

    @cached_property
    def pooling(self) -> str | None:
        """How one vector is made of those of tokens: cls, mean, max, lasttoken …; None if the folder does not say."""
        folder = next(
            (e["path"] for e in self.read("modules.json").get("", []) if e["type"].endswith(".Pooling")), None
        )
        if folder is None:
            return None
        config = self.read(f"{folder}/config.json")
        mode = config.get("pooling_mode") or "+".join(each for each in _MODES if config.get(f"pooling_mode_{each}"))
        return str(mode).replace("_tokens", "").replace("_token", "")

    @cached_property
    def most_tokens(self) -> int:
        """Tokens that it reads of a text, special ones counted."""
        said = (
            self.read("sentence_bert_config.json").get("max_seq_length"),
            self.read("tokenizer_config.json").get("model_max_length"),
        )
        known = [int(each) for each in said if isinstance(each, int | float) and 0 < each < _UNKNOWN]
        return min(known) if known else int(self.read("config.json").get("max_position_embeddings", _LONGEST))

    @cached_property
    def lower_case(self) -> bool:
        """Whether texts are made lower-case before."""
        return bool(self.read("sentence_bert_config.json").get("do_lower_case"))

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, without truncation or padding."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency("tokenizers", "onnx") from error
        try:
            found = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more special
            raise EmbeddingError(f"cannot read {self.path / 'tokenizer.json'}: {error}") from error
        return unbounded(found)

    @cached_property
    def padding(self) -> int:
        """The token that fills a batch."""
        padding = self.read("tokenizer.json").get("padding") or {}
        token = self.read("tokenizer_config.json").get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        return int(padding.get("pad_id") or (self.tokenizer().token_to_id(token) if token else 0) or 0)


def file_digest(path: Path) -> str:
    """Return a hash of a file's length and of samples all over it: training changes them all; data files included."""
    digest = hashlib.sha256()
    for each in (path, *sorted(path.parent.glob(f"{path.name}{DATA}")), path.with_suffix(".bin")):
        if not each.is_file():
            continue
        size = each.stat().st_size
        digest.update(str(size).encode())
        with each.open("rb") as file:
            for sample in range(_SAMPLES):
                file.seek(max(0, size - _SAMPLE) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def scales_by_batch(path: Path) -> bool:
    """Tell whether a file is quantised dynamically: it scales by the largest number of a batch, all texts alike."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DynamicQuantize") >= 0  # how names of such operators begin
