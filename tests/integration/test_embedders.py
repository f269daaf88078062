"""Embedders of all kinds, with models of random weights: vectors, fingerprints, and what a space makes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgvec_toolkit.database import Database
from pgvec_toolkit.embed import base
from pgvec_toolkit.embed.base import Embedder, fingerprint
from pgvec_toolkit.embed.function import FunctionEmbedder
from pgvec_toolkit.embed.kinds import KINDS, load
from pgvec_toolkit.embed.registry import embedder_of, register
from pgvec_toolkit.embed.texts import embed_texts
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, MissingDependency, RejectedText
from tests import tiny_models
from tests.words import WordEmbedder

pytest.importorskip("sentence_transformers", reason="needs the extra embed: pip install 'pgvec-toolkit[embed]'")
pytestmark = pytest.mark.embedding

KEYS = [{"id": text, "text": text} for text in ("rotate keys", "boil water")]
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
TEXTS = ["rotate the keys", "cook pasta in salt water " * 5, "the train to paris", "renew credentials", "a lazy dog"]


def needs(module: str, extra: str) -> None:
    pytest.importorskip(module, reason=f"needs the extra {extra}: pip install 'pgvec-toolkit[{extra}]'")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.tiny_bert(folder / "bert")
    tiny_models.tiny_modern_bert(folder / "modern")
    tiny_models.tiny_multi_vector(folder / "late")
    return folder


@pytest.fixture(scope="module")
def exported(models: Path) -> Path:
    needs("onnxruntime", "onnx")
    needs("onnx", "onnx")
    from pgvec_toolkit.embed.export import export_onnx

    for each in ("bert", "modern"):
        done = export_onnx(str(models / each), models / f"{each}-onnx")
        assert done.similarity > 0.9999
        assert Path(done.file).stat().st_size == done.size
        assert load(done.spec).name == done.spec
    quantised = export_onnx(str(models / "bert"), models / "bert-onnx", int8=True)
    assert 0.8 < quantised.similarity < 0.99999
    return models


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> str:
    needs("model2vec", "static")
    return f"static:{tiny_models.tiny_static(tmp_path_factory.mktemp('static') / 'model')}"


def again(embedder: Embedder) -> Embedder:
    """Load an embedder as it is loaded from the registry."""
    return load(embedder.name, json.loads(json.dumps(base.stored_details(embedder))))


# -- PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bert", "modern"])
def test_what_changes_vectors_is_in_name_and_fingerprint(models: Path, model: str) -> None:
    plain = load(str(models / model))
    assert plain.name == str(models / model)
    vectors = embed_texts(plain, TEXTS)
    seen = {fingerprint(plain)}
    for option in ("truncate_dim=16", "dtype=bfloat16", "normalize=false", "query_prompt=ask"):
        other = load(f"{models / model}?{option}")
        found = embed_texts(other, TEXTS)
        if option == "truncate_dim=16":
            assert (found.shape, other.dimensions) == ((5, 16), 16)
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
            np.testing.assert_allclose(found[0], vectors[0, :16] / np.linalg.norm(vectors[0, :16]), atol=1e-5)
        elif option == "normalize=false":
            assert np.abs(np.linalg.norm(found, axis=1) - 1).max() > 0.1
        elif option == "dtype=bfloat16":
            assert 0 < np.abs(found - vectors).max() < 0.1
        assert fingerprint(again(other)) == fingerprint(other)
        np.testing.assert_allclose(again(other).embed_query("salt"), other.embed_query("salt"), atol=1e-6)
        seen.add(fingerprint(other))
    assert len(seen) == 5


def test_what_is_changed_in_a_folder_changes_the_fingerprint(models: Path, tmp_path: Path) -> None:
    def edit(file: str, change: Callable[[str], str]) -> None:
        path = folder / file
        before = path.read_text()
        assert change(before) != before
        path.write_text(change(before))
        found.append(fingerprint(load(str(folder))))
        path.write_text(before)

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(models / "bert", tmp_path / "bert")
    found = [fingerprint(load(str(folder)))]
    edit("1_Pooling/config.json", lambda text: text.replace('"mean"', '"cls"'))
    edit("tokenizer_config.json", lambda text: text.replace('"do_lower_case": true', '"do_lower_case": false'))
    edit("modules.json", lambda text: json.dumps([*json.loads(text), NORMALIZE]))
    weights = models / "bert" / "model.safetensors"
    tensors = load_file(weights)
    tensors["embeddings.word_embeddings.weight"][1:] += 1  # the first row is that of padding
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    found.append(fingerprint(load(str(folder))))
    assert len(set(found)) == 5


def test_static_models_of_sentence_transformers(static: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    modules = [StaticEmbedding.from_model2vec(static.removeprefix("static:"))]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path), create_model_card=False)
    made = load(str(tmp_path))
    assert (made.dimensions, base.max_tokens(made)) == (16, 510)
    assert len(base.tokenizer(made).encode("rotate keys").ids) == 2  # type: ignore[union-attr]
    np.testing.assert_allclose(made.embed_query("rotate keys"), load(static).embed_query("rotate keys"), atol=1e-6)


def test_folders_are_found_from_elsewhere(
    exported: Path, static: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.parent)
    here = exported.name
    for spec in (
        f"{here}/bert",
        f"{here}/bert-onnx?backend=onnx",
        f"colbert:{here}/late",
        f"fastembed:{here}/bert-onnx",
    ):
        assert str(exported) in load(spec).name
    monkeypatch.chdir(Path(static.removeprefix("static:")).parent)
    assert load("static:model").name == static
    assert load(f"{models}/bert?query_prompt={'%C3%A9' * 300}").name == f"{models}/bert"


def test_options_that_do_not_go_together() -> None:
    for spec, problem in {
        "m/m?file=x.onnx": "file is for backend=onnx and backend=openvino",
        "m/m?backend=onnx&dtype=float16": "dtype is for backend=torch",
        "m/m?backend=jax": "is not one of torch, onnx, openvino",
        "fastembed:m/m?file=x.onnx": "file=x.onnx is for a folder, which m/m is not",
    }.items():
        with pytest.raises(ConfigurationError, match=problem):
            load(spec)


def test_code_of_a_model_is_run_only_if_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusts(embedder: Any) -> bool:
        return bool(embedder._loading.get("trust_remote_code"))

    spec = "m/m?trust_remote_code=true"
    assert trusts(load(spec))
    assert not trusts(load("m/m"))
    assert load(spec).name == "m/m"
    # A database may say anything.
    assert not trusts(load(spec, {}))
    assert not trusts(load("m/m", {"options": {"trust_remote_code": True}}))
    assert trusts(load(spec, {}, trust=True))
    monkeypatch.setenv("PGVEC_TRUST_REMOTE_CODE", "1")
    assert trusts(load("m/m", {}))


# -- ONNX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bert", "modern"])
@pytest.mark.parametrize(
    "spec",
    [
        "{}?backend=onnx&file=onnx/model.onnx",
        "{}?backend=openvino&file=onnx/model.onnx",
        "fastembed:{}?file=onnx/model.onnx",
    ],
)
def test_onnx_files_give_the_vectors_of_pytorch(exported: Path, model: str, spec: str) -> None:
    if "openvino" in spec:
        needs("openvino", "openvino")
    if "fastembed" in spec:
        needs("fastembed", "fastembed")
    torch, onnx = load(str(exported / model)), load(spec.format(exported / f"{model}-onnx"))
    assert (onnx.dimensions, base.max_tokens(onnx)) == (torch.dimensions, base.max_tokens(torch))
    found = embed_texts(onnx, TEXTS)
    np.testing.assert_allclose(found, embed_texts(torch, TEXTS), atol=1e-5)
    np.testing.assert_allclose(onnx.embed_query("key " * 100), torch.embed_query("key " * 100), atol=1e-5)
    np.testing.assert_allclose(onnx.embed_documents(TEXTS[2:3]), found[2:3], atol=1e-5)
    assert fingerprint(onnx) != fingerprint(torch)
    assert fingerprint(again(onnx)) == fingerprint(onnx)
    assert base.is_cached(onnx)
    short = load(f"{onnx.name}&truncate_dim=16")
    cut = found[:, :16] / np.linalg.norm(found[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(embed_texts(short, TEXTS), cut, atol=1e-5)
    assert len({fingerprint(onnx), fingerprint(short)}) == 2


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "lasttoken", "mean_sqrt_len_tokens"])
def test_files_that_give_vectors_of_tokens_are_pooled(exported: Path, tmp_path: Path, mode: str) -> None:
    import onnx
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    modules = [Transformer(str(exported / "bert" / "bert")), Pooling(32, pooling_mode=mode)]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save_pretrained(str(tmp_path), create_model_card=False)
    graph = onnx.load(exported / "bert-onnx" / "onnx" / "model.onnx")
    last = [node.output[0] for node in graph.graph.node if "LayerNorm" in node.name][-1]
    graph.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["a", "b", 32]))
    onnx.save(graph, tmp_path / "model.onnx")
    found = load(f"{tmp_path}?backend=onnx&normalize=false").embed_documents(TEXTS)
    np.testing.assert_allclose(found, model.encode(TEXTS, show_progress_bar=False), atol=1e-5)


def test_an_export_leaves_what_is_there_unless_it_is_good(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgvec_toolkit.embed import export

    with pytest.raises(ConfigurationError, match="is the model's own folder, whose configuration would be lost"):
        export.export_onnx(str(exported / "bert"), exported / "bert")
    folder = shutil.copytree(exported / "modern-onnx", tmp_path / "onnx")
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    monkeypatch.setattr(export, "_ALIKE", 2)
    with pytest.raises(EmbeddingError, match="made other vectors"):
        export.export_onnx(str(exported / "bert"), folder)
    assert {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()} == before


def test_a_quantised_file_is_another_model_near_the_first(exported: Path) -> None:
    floats = load(f"{exported}/bert-onnx?backend=onnx")
    int8 = load(f"{exported}/bert-onnx?backend=onnx&file=onnx/model_qint8.onnx")
    assert fingerprint(floats) != fingerprint(int8)
    assert (base.is_cached(floats), base.is_cached(int8)) == (True, False)
    cosines = (embed_texts(floats, TEXTS) * embed_texts(int8, TEXTS)).sum(axis=1)
    assert 0.8 < cosines.min() < 0.99999


def test_what_is_missing_says_what_to_do(models: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmbeddingError, match=r"there is no onnx/model.onnx and no model.onnx in .*pgvec models export"):
        load(f"{models}/late?backend=onnx").embed_query("x")
    with pytest.raises(EmbeddingError, match=r"no file x.onnx in .*, but onnx/model.onnx, onnx/model_qint8.onnx: say"):
        load(f"{exported}/bert-onnx?backend=onnx&file=x.onnx").embed_query("x")
    (models / "broken").mkdir()
    (models / "broken" / "model.onnx").write_bytes(b"no model")
    (models / "broken" / "tokenizer.json").write_text((models / "bert" / "tokenizer.json").read_text())
    with pytest.raises(EmbeddingError, match=r"onnxruntime cannot load .*model.onnx"):
        load(f"{models}/broken?backend=onnx").embed_query("x")
    for module, spec, extra in [
        ("onnxruntime", f"{exported}/bert-onnx?backend=onnx", "onnx"),
        ("openvino", f"{exported}/bert-onnx?backend=openvino", "openvino"),
        ("fastembed", "fastembed:x", "fastembed"),
        ("model2vec", "static:x", "static"),
        ("httpx", "openai:m?base_url=http://127.0.0.1:9", "http"),
    ]:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependency, match=rf"pip install 'pgvec-toolkit\[{extra}\]'"):
            load(spec).embed_query("x")


# -- static, functions -----------------------------------------------------------------------------


def test_static_vectors_are_means(static: str) -> None:
    model = load(static)
    assert base.is_cached(model)
    assert (model.dimensions, base.max_tokens(model)) == (16, 512)
    rotate, keys, both = embed_texts(load(f"{static}?normalize=false"), ["rotate", "keys", "rotate keys"])
    np.testing.assert_allclose((rotate + keys) / 2, both, atol=1e-6)
    np.testing.assert_allclose(model.embed_query("Rotate KEYS"), both / np.linalg.norm(both), atol=1e-6)
    short = load(f"{static}?truncate_dim=4")
    assert (short.dimensions, len({fingerprint(model), fingerprint(short), fingerprint(again(short))})) == (4, 2)
    with pytest.raises(RejectedText, match="knows no word of 2 of 3 texts") as error:
        model.embed_documents(["§", "keys", "ß"])
    assert error.value.positions == (0, 2)
    long = embed_texts(model, ["keys " + "rotate " * 3000])
    assert not np.allclose(long, model.embed_query("rotate"), atol=1e-7)  # no word is left out
    with pytest.raises(EmbeddingError, match=r"cannot load model2vec /nowhere.*Give the path of a folder"):
        load("static:/nowhere").embed_query("x")


def test_a_function_is_an_embedder_that_no_name_loads(db: Database) -> None:
    words = WordEmbedder()
    made = FunctionEmbedder(lambda texts: [words.embed_query(text) for text in texts], name="words", dimensions=64)
    docs = db.create_collection("docs", embedder=made)
    docs.upsert([{"id": text, "text": text} for text in TEXTS])
    assert db.collection("docs", embedder=made).search("lazy dog", k=1)[0].id == "a lazy dog"
    with pytest.raises(EmbeddingError, match=r"function:words is a function of yours.*hand it over.*name='words'"):
        db.collection("docs").search("lazy dog")


# -- in a database ---------------------------------------------------------------------------------


def test_several_vectors_a_text_fill_a_space(db: Database, models: Path) -> None:
    docs = db.create_collection("docs", embedder=WordEmbedder())
    docs.upsert([{"id": text, "text": text} for text in TEXTS])
    late = load(str(models / "late"))
    assert not base.is_cached(late)
    docs.add_space("tokens", embedder=late.name)
    assert docs.embed_space("tokens").chunks == len(TEXTS)
    rows = db.fetch("SELECT d.text, array_length(v.embedding, 1) FROM docs d JOIN docs_tokens v USING (key)")
    assert dict(rows) == {text: len(each) for text, each in zip(TEXTS, late.embed_documents(TEXTS), strict=True)}
    hits = docs.maxsim("rotate keys", k=5, space="tokens")
    query = late.embed_query("rotate keys")
    expected = [float((query @ each.T).max(axis=1).sum()) for each in late.embed_documents([hit.text for hit in hits])]
    np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-4)
    assert expected == sorted(expected, reverse=True)


def test_a_refusal_names_what_differs(db: Database, models: Path) -> None:
    plain, prompted = load(str(models / "bert")), load(f"{models / 'bert'}?query_prompt=ask: ")
    docs = db.create_collection("docs", embedder=prompted)
    docs.upsert([{"id": "x", "text": "rotate keys"}])
    given = db.collection("docs", embedder=plain)
    with pytest.raises(EmbeddingError, match=r'has another fingerprint.*\(prompts.query: stored "ask: ", given ""\)'):
        given.search("x")
    short = load(f"{models / 'bert'}?truncate_dim=16")
    with pytest.raises(
        EmbeddingError, match=r'dimensions: stored 32, given 16; name: stored ".*; truncate_dim: stored none'
    ):
        embedder_of(docs.space, short, "docs")
    # By its name, it gets back what it was made with.
    assert fingerprint(db.collection("docs", embedder=str(models / "bert")).embedder) == fingerprint(prompted)
    assert fingerprint(db.collection("docs").embedder) == fingerprint(prompted)


def test_options_beside_the_fingerprint_are_kept_and_can_be_replaced(db: Database) -> None:
    spec = "openai:m?base_url=http://127.0.0.1:9/v1&attempts=1&length=3"
    docs = db.create_collection("docs", embedder=spec)
    assert docs.space.model == "openai:m"
    stored: Any = db.collection("docs").embedder
    assert (stored.url, stored.attempts, stored.dimensions) == ("http://127.0.0.1:9/v1", 1, 3)
    moved: Any = db.collection("docs", embedder="openai:m?base_url=http://127.0.0.1:8/v1").embedder
    assert (moved.url, moved.attempts) == ("http://127.0.0.1:8/v1", 1)
    assert db.collection("docs", embedder="http://127.0.0.1:8/v1?model=m").embedder.url == moved.url  # type: ignore[attr-defined]
    with db.connection() as connection:
        register(connection, moved)
    assert db.collection("docs").embedder.url == "http://127.0.0.1:8/v1"  # type: ignore[attr-defined]


def test_models_of_the_database(db: Database, static: str) -> None:
    assert db.models() == []
    docs = db.create_collection("docs", embedder=static)
    docs.add_space("other", embedder=WordEmbedder())
    more = db.create_collection("more", embedder=static)
    assert (docs.ingest(KEYS).cached, more.ingest(KEYS).cached) == (0, 2)
    one, two = sorted(db.models(), key=lambda model: model.dimensions)
    assert (one.name, one.dimensions, one.max_tokens) == (static, 16, 512)
    assert (one.spaces, two.spaces) == (["docs.dense", "more.dense"], ["docs.other"])
    docs.drop_space("other")
    assert [model.spaces for model in db.models() if model.name == "test/words"] == [[]]


# -- without PyTorch -------------------------------------------------------------------------------


@pytest.fixture
def light(exported: Path, static: str) -> list[str]:
    return [f"{exported}/bert-onnx?backend=onnx", static]


def test_light_embedders_load_no_pytorch(light: list[str]) -> None:
    code = "import sys; from pgvec_toolkit.embed.kinds import load\n"
    code += "".join(f"assert len(load({spec!r}).embed_query('rotate keys'))\n" for spec in light)
    code += "print(*{'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_kind_shows_an_example_of_itself() -> None:
    from pgvec_toolkit.embed.kinds import kind_of_spec

    assert [kind_of_spec(kind.example) for kind in KINDS] == list(KINDS)
