"""pgvec models: those of the database, the kinds there are, export."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgvec_toolkit.embed.kinds import KINDS
from tests import tiny_models
from tests.cli.outcome import Run


def test_models_and_their_spaces(docs: Run) -> None:
    (model,) = docs("models", "--json").json
    assert (model["name"], model["dimensions"], model["spaces"]) == ("test/words", 64, ["docs.dense"])
    shown = docs("models").out
    assert model["fingerprint"][:12] in shown
    assert model["fingerprint"][:13] not in shown


def test_kinds_need_no_database(bare: Run) -> None:
    kinds = bare("models", "--kinds", "--json").json
    assert [kind["prefix"] for kind in kinds] == [kind.prefix for kind in KINDS]
    assert {kind["prefix"]: kind["install"] for kind in kinds}["static:"] == "pip install 'pgvec-toolkit[static]'"
    shown = bare("models", "--kinds").out
    assert "openai:text-embedding-3-small?dimensions=512" in shown
    assert "truncate_dim" in shown


@pytest.mark.embedding
def test_an_exported_model_is_searched_with(bare: Run, run: Run, tmp_path: Path) -> None:
    for module, extra in (("sentence_transformers", "embed"), ("onnxruntime", "onnx"), ("onnx", "onnx")):
        pytest.importorskip(module, reason=f"needs the extra {extra}: pip install 'pgvec-toolkit[{extra}]'")
    model, folder = tiny_models.tiny_bert(tmp_path / "bert"), tmp_path / "light"
    exported = bare("models", "export", model, str(folder))
    assert exported.out.strip() == f"{folder}?backend=onnx&file=onnx/model.onnx"
    assert "cosine of its vectors with the model's own: at least 1.00000" in exported.err
    assert "the format is onnx" in bare("models", "export", model, str(folder), "--to", "tflite").err
    assert run("collection", "create", "light", "--embedder", exported.out.strip(), "--query-prompt", "a ").code == 0
    (tmp_path / "keys.md").write_text("rotate the keys")
    assert run("ingest", "light", str(tmp_path / "keys.md")).code == 0
    assert run("search", "light", "keys", "--json").json[0]["text"] == "rotate the keys"
    (stored,) = run("models", "--json").json
    assert (stored["name"], stored["details"]["prompts"]["query"]) == (exported.out.strip(), "a ")
