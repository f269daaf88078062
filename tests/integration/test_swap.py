"""Another model for a collection: prepared, compared, switched, rolled back, dropped, while others search and write."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from pgvec_toolkit.collection import Collection, base
from pgvec_toolkit.database import Database
from pgvec_toolkit.embed import kinds
from pgvec_toolkit.errors import ConfigurationError, EmbeddingError, SwapError
from pgvec_toolkit.swap.state import space_name
from tests.fire import Fire
from tests.words import WordEmbedder

ROOT = Path(__file__).parents[2]
TEXTS = [
    f"{animal} {number}. The {animal} has {thing}"
    for number in range(10)
    for animal in ("cat", "dog", "owl")
    for thing in ("fur", "ears", "eyes", "claws")
]


class Other(WordEmbedder):
    """Another model, of other dimensions."""

    name = "test/others-v2"

    def __init__(self, dimensions: int = 32) -> None:
        super().__init__(dimensions)
        self.before_embedding = lambda: None

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.before_embedding()
        return super().embed_documents(texts)


def records(texts: Sequence[str] = TEXTS, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": first + number, "text": text} for number, text in enumerate(texts)]


@pytest.fixture
def docs(db: Database, embedder: WordEmbedder) -> Collection:
    collection = db.create_collection("docs", embedder=embedder)
    collection.upsert(records())
    return collection


@pytest.fixture
def others(dsn: str, docs: Collection) -> Iterator[Collection]:
    """The collection, as another process has it open: it has searched."""
    del docs
    with Database(dsn) as database:
        collection = database.collection("docs", embedder=WordEmbedder())
        collection.search("cat", k=3)
        yield collection


def true_vectors(connection: psycopg.Connection, table: str, embedder: WordEmbedder) -> bool:
    """Whether each chunk has a vector of its text, and there are no others."""
    rows = connection.execute(
        f"SELECT d.text, v.embedding::text FROM docs d FULL JOIN {table} v USING (key)".encode()
    ).fetchall()
    return all(
        vector is not None and np.allclose(embedder.embed_query(text), np.fromstring(vector[1:-1], sep=","), atol=1e-5)
        for text, vector in rows
    )


def default(connection: psycopg.Connection) -> Any:
    row = connection.execute("SELECT space FROM pgvec.spaces WHERE collection = 'docs' AND is_default").fetchone()
    return row and row[0]


def test_from_one_model_to_another_and_back(docs: Collection, connection: psycopg.Connection) -> None:
    docs.create_index(m=7, ef_construction=33)
    docs.tune([0.9, 0.8], k=5)
    swap = docs.swap_model(Other(), sample=30)
    assert (swap.state, swap.from_space, swap.to_space, swap.missing) == ("ready", "dense", "others_v2", 0)
    assert (swap.from_model, swap.to_model, swap.notes) == ("test/words", "test/others-v2", ())
    assert default(connection) == "dense"
    assert true_vectors(connection, "docs_others_v2", Other())
    (index,) = docs.indexes(space="others_v2")
    assert (index.method, index.form, sorted(index.options)) == ("hnsw", "full", ["ef_construction=33", "m=7"])
    tuned = docs.profiles(space="others_v2")
    assert {(profile.k, profile.target_recall, profile.is_default) for profile in tuned} == {
        (5, 0.8, False),
        (5, 0.9, True),
    }
    compared = swap.comparison
    assert compared is not None
    assert (compared.k, compared.source) == (10, "stored")
    assert 0 < compared.overlap_low <= compared.overlap <= compared.overlap_high < 1

    docs.log_queries(0.5)
    assert docs.switch_model().state == "switched"
    assert (docs.space.name, docs.embedder.name) == ("others_v2", "test/others-v2")
    assert docs.search("dog 3. The dog has fur", k=1)[0].text == "dog 3. The dog has fur"
    assert connection.execute("SELECT share FROM pgvec.query_sampling").fetchall() == [(0.5,)] * 2
    docs.upsert(records(["a new chunk"], 1000))
    assert true_vectors(connection, "docs_others_v2", Other())
    assert docs.model_swap().missing == 1  # type: ignore[union-attr]

    assert docs.rollback_model().state == "rolled back"
    assert (docs.space.name, docs.embedder.name) == ("dense", "test/words")
    assert true_vectors(connection, "docs_dense", WordEmbedder())
    assert docs.search("a new chunk", k=1)[0].id == "1000"
    docs.switch_model()
    assert docs.drop_swapped() == "dense"
    ended = docs.model_swap()
    assert ended is not None
    assert (ended.is_open, ended.state) == (False, "switched")
    assert connection.execute("SELECT to_regclass('docs_dense')").fetchone() == (None,)
    with pytest.raises(SwapError, match="of test/others-v2 already"):
        docs.swap_model(Other())
    with pytest.raises(SwapError, match="no swap of the model of 'docs' is open"):
        docs.rollback_model()


def test_judged_queries_decide_whether_it_switches_by_itself(docs: Collection) -> None:
    class Blind(Other):
        name = "test/blind"

        def embed_query(self, text: str) -> NDArray[np.float32]:
            return super().embed_query("the same" if len(text) < 30 else text)

    queries = {str(number): TEXTS[number] for number in range(0, 100, 5)}
    qrels = {id: {id: 1} for id in queries}
    with pytest.raises(SwapError, match="not switched: the judged queries find less with test/blind"):
        docs.swap_model(Blind(), queries=queries, qrels=qrels, switch=True)
    swap = docs.model_swap()
    assert swap is not None
    assert swap.comparison is not None
    assert swap.comparison.is_surely_worse
    assert (swap.state, swap.comparison.source) == ("ready", "given")
    with pytest.raises(SwapError, match=r"being swapped to test/blind \(space blind, ready\)"):
        docs.swap_model(Other())
    assert docs.drop_swapped() == "blind"
    with pytest.raises(SwapError, match=r"0\.\d\d in common, less than 0\.99"):
        docs.swap_model(Other(), sample=30, switch=True, min_overlap=0.99)
    assert docs.swap_model(Other(), queries=queries, qrels=qrels, switch=True).state == "switched"


def test_who_has_it_open_goes_on(
    docs: Collection, others: Collection, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, *_: Any, **__: Any) -> Any:
        raise EmbeddingError(f"cannot load model {name}")

    monkeypatch.setattr(kinds, "load", load)
    docs.swap_model(Other(), sample=5, switch=True)
    # Both of one model: the old space, as long as it is there.
    assert others.search("cat 3. The cat has ears", k=1)[0].text == "cat 3. The cat has ears"
    assert others.search("cat 3. The cat has ears", k=2)[0].text == "cat 3. The cat has ears"
    assert others.space.name == "dense"
    # What it writes is the new model's, which it cannot load here by its name.
    with pytest.raises(EmbeddingError, match=r"The model of collection 'docs' was swapped for it since"):
        others.upsert(records(["words of another process"], 2000))
    others._given["others_v2"] = Other()
    assert others.upsert(records(["words of another process"], 2000)).inserted == 1
    assert true_vectors(connection, "docs_others_v2", Other())
    assert others.search("words of another process", k=1)[0].id == "2000"


def test_who_has_it_open_goes_on_when_the_old_space_is_gone(
    docs: Collection, others: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "load", lambda *_, **__: Other())
    docs.swap_model(Other(), sample=5, switch=True)
    docs.drop_swapped()
    assert others.search("cat 3. The cat has ears", k=1)[0].text == "cat 3. The cat has ears"
    assert others.embedder.name == "test/others-v2"


def test_all_searches_go_on_when_the_old_space_is_gone(
    docs: Collection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "load", lambda *_, **__: Other())
    with Database(dsn) as database:
        others = {
            call: database.collection("docs", embedder=WordEmbedder())
            for call in ("search_many", "hybrid_search", "explain", "similar")
        }
        docs.swap_model(Other(), sample=5, switch=True)
        docs.drop_swapped()
        asked: dict[str, Any] = {"search_many": ["cat"], "similar": "3"}
        for call, collection in others.items():
            assert getattr(collection, call)(asked.get(call, "cat"), 3), call


def test_searches_notice_the_switch_in_time(
    docs: Collection, others: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "load", lambda *_, **__: Other())
    docs.swap_model(Other(), sample=5, switch=True)
    monkeypatch.setattr(base, "_LOOK_AGAIN", -1.0)
    assert others.search("cat 3. The cat has ears", k=1)
    assert others.space.name == "others_v2"


def test_a_write_in_the_moment_of_the_switch_is_refused(
    docs: Collection, dsn: str, connection: psycopg.Connection
) -> None:
    """Its vectors are made by the old model, its transaction begins when the new one has taken over."""
    docs.swap_model(Other(), sample=5)

    class Late(WordEmbedder):
        def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if "late" in texts[0]:
                docs.switch_model()
            return super().embed_documents(texts)

    for write in ("upsert", "ingest"):
        with Database(dsn) as database:
            late = database.collection("docs", embedder=Late())
            late._given["others_v2"] = Other()
            with pytest.raises(SwapError, match=r"swapped while this was being written.*run it again"):
                getattr(late, write)([{"id": f"late {write}", "text": "late words"}])
            getattr(late, write)([{"id": f"late {write}", "text": "late words"}])
        assert true_vectors(connection, "docs_others_v2", Other())
        docs.rollback_model()
        assert true_vectors(connection, "docs_dense", WordEmbedder())


def test_searches_and_writes_all_the_while(docs: Collection, dsn: str, connection: psycopg.Connection) -> None:
    """Nothing fails; each result is one of either model; in the end each text has its vector in both spaces."""
    models = {64: WordEmbedder(), 32: Other()}
    docs.create_index()
    expected = {space: [hit.id for hit in docs.search("owl 7. The owl has claws", k=1)] for space in ("dense",)}[
        "dense"
    ]

    def search(database: Database) -> Any:
        def loop(_: int) -> None:
            collection = database.collection("docs", embedder=None)
            collection._given[collection.space.name] = models[collection.space.dimensions]
            hits = collection.search("owl 7. The owl has claws", k=3)
            assert [hit.id for hit in hits[:1]] == expected
            assert len(hits) == 3

        return loop

    def write(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("UPDATE docs SET text = text || ' again' WHERE id = %s", [str(number % 30)])
            other.execute("DELETE FROM docs WHERE id = %s", [str(30 + number % 20)])

    def upsert(number: int) -> None:
        with Database(dsn) as database:
            collection = database.collection("docs")
            collection._given = {"dense": models[64], "others_v2": models[32]}
            try:
                collection.upsert(records([f"written {number}"], 5000 + number))
            except SwapError:
                collection.upsert(records([f"written {number}"], 5000 + number))

    with Database(dsn) as database:
        with Fire(search(database), write, upsert) as fire:
            docs.swap_model(models[32], sample=10, switch=True)
            docs.rollback_model()
            docs.switch_model()
        assert fire.failures == []
        assert all(fire.rounds), fire.rounds
    docs.embed_space("dense")
    docs.embed_space("others_v2")  # texts that were changed after the switch
    assert true_vectors(connection, "docs_dense", models[64])
    assert true_vectors(connection, "docs_others_v2", models[32])


def test_texts_that_change_and_go_during_the_backfill(
    docs: Collection, dsn: str, connection: psycopg.Connection
) -> None:
    other = Other()
    changes = [
        "UPDATE docs SET text = 'changed while it was embedded' WHERE id = '3'",
        "DELETE FROM docs WHERE id = '4'",
        """UPDATE docs SET metadata = '{"pgvec_context": "Animals"}' WHERE id = '5'""",
        "INSERT INTO docs (id, document_id, text) VALUES ('new', 'new', 'new words')",
    ]

    def change() -> None:
        if not other.embedded:  # it is only tried out
            return
        with psycopg.connect(dsn, autocommit=True) as another:
            while changes:
                another.execute(changes.pop().encode())

    other.before_embedding = change
    docs.swap_model(other, sample=5)
    assert other.embedded[1:121] == TEXTS
    assert set(other.embedded[121:]) == {"changed while it was embedded", f"Animals\n\n{TEXTS[5]}", "new words"}
    connection.execute("UPDATE docs SET metadata = '{}' WHERE id = '5'")
    docs.embed_space("others_v2")
    docs.embed_space("dense")
    assert true_vectors(connection, "docs_others_v2", Other())
    assert true_vectors(connection, "docs_dense", WordEmbedder())


def test_two_at_once_are_refused(docs: Collection, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgvec_toolkit.swap.state._PATIENCE", 0.0)
    other, reached, goes_on = Other(), threading.Event(), threading.Event()

    def wait() -> None:
        if len(other.embedded) == 0:
            return
        reached.set()
        assert goes_on.wait(60)

    other.before_embedding = wait
    swapping = threading.Thread(target=lambda: docs.swap_model(other, sample=5))
    swapping.start()
    try:
        assert reached.wait(60)
        with Database(dsn) as database:
            for refused in (lambda second: second.swap_model(Other()), lambda second: second.drop_swapped()):
                with pytest.raises(SwapError, match="another session is swapping the model of docs"):
                    refused(database.collection("docs", embedder=WordEmbedder()))
    finally:
        goes_on.set()
        swapping.join()
    assert docs.model_swap().state == "ready"  # type: ignore[union-attr]


def test_chunks_without_text_are_not_lost(db: Database) -> None:
    docs = db.create_collection("docs", embedder=WordEmbedder())
    docs.upsert({"id": ["a", "b"], "vector": np.eye(64)[:2]})
    with pytest.raises(SwapError, match="2 chunks of docs have a vector, but no text"):
        docs.swap_model(Other())
    docs.set_vectors("others_v2", ["a", "b"], np.eye(32)[:2])
    assert docs.swap_model(Other(), switch=True).state == "switched"


def test_from_given_vectors_to_a_model(db: Database, connection: psycopg.Connection) -> None:
    """A default space without a model, of bits: it is compared by stored vectors."""
    docs = db.create_collection("docs", dimensions=8, type="bit")
    docs.upsert([{"id": str(n), "text": f"text {n}", "vector": f"{n:08b}"} for n in range(40)])
    docs.create_index()
    swap = docs.swap_model(Other(), name="words", k=3, switch=True)
    assert (swap.from_model, swap.state) == (None, "switched")
    assert swap.comparison is not None
    assert swap.comparison.source == "vectors"
    assert docs.indexes()[0].form == "full"
    assert docs.keyword_search("text", k=40)
    docs.upsert(records(["one more"], 100))
    with pytest.raises(SwapError, match="1 chunks of docs have no vector in dense, which has no model"):
        docs.rollback_model()
    assert default(connection) == "words"


def test_the_default_space_can_be_switched_in_sql(docs: Collection, connection: psycopg.Connection) -> None:
    role = f"reader_{connection.info.backend_pid}"
    docs.add_space("more", embedder=Other())
    with pytest.raises(psycopg.Error, match="120 chunks would no longer be found") as lost:
        connection.execute("SELECT pgvec.switch_space('docs', 'more')")
    assert lost.value.sqlstate == "PV005"
    assert lost.value.diag.message_hint == "Embed them first: pgvec collection embed docs more."
    docs.embed_space("more")
    connection.execute(f"CREATE ROLE {role}; GRANT SELECT ON docs_dense TO {role}".encode())
    try:
        connection.execute("ALTER TABLE docs_dense ENABLE ROW LEVEL SECURITY")
        with pytest.raises(psycopg.Error, match=r"docs_dense has row-level security, .*docs_more has none"):
            connection.execute("SELECT pgvec.switch_space('docs', 'more')")
        connection.execute("ALTER TABLE docs_dense DISABLE ROW LEVEL SECURITY")
        connection.execute("SET default_transaction_isolation = 'repeatable read'")
        with pytest.raises(psycopg.Error, match="in a transaction that is repeatable read"):
            connection.execute("SELECT pgvec.switch_space('docs', 'more')")
        connection.execute("RESET default_transaction_isolation")
        for _ in range(2):
            assert connection.execute("SELECT pgvec.switch_space('docs', 'more')").fetchone() in [("dense",), ("more",)]
        assert default(connection) == "more"
        can = "SELECT has_table_privilege(%s, 'docs_more', 'SELECT'), has_table_privilege(%s, 'docs_more', 'INSERT')"
        assert connection.execute(can, [role, role]).fetchone() == (True, False)
        with pytest.raises(
            psycopg.Error, match="64 dimensions, vector space 'more' has 32: it holds vectors of test/oth"
        ):
            connection.execute("SELECT pgvec.search('docs', %s::text)", [str(WordEmbedder().embed_query("x").tolist())])
    finally:
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_changed_text_has_no_outdated_vector(docs: Collection, connection: psycopg.Connection) -> None:
    docs.add_space("more", embedder=Other())
    docs.add_space("given", dimensions=2)
    docs.embed_space("more")
    docs.set_vectors("given", range(120), np.ones((120, 2)))
    counts = (
        "SELECT (SELECT count(*) FROM docs_dense), (SELECT count(*) FROM docs_more), (SELECT count(*) FROM docs_given)"
    )
    connection.execute("UPDATE docs SET metadata = '{\"a\": 1}', document_id = 'x', text = text || ''")
    assert connection.execute(counts).fetchone() == (120, 120, 120)
    connection.execute("UPDATE docs SET text = text || '.' WHERE id IN ('7', '8')")
    assert connection.execute(counts).fetchone() == (118, 118, 120)
    connection.execute("UPDATE docs SET metadata = '{\"pgvec_context\": \"Title\"}' WHERE id = '9'")
    assert connection.execute(counts).fetchone() == (118, 117, 120)
    docs.upsert(records(["another text"], 10))
    assert connection.execute(counts).fetchone() == (118, 116, 120)
    findings = [finding.finding for finding in docs.database.health() if "no vector" in finding.finding]
    assert findings == ["2 chunks have no vector there: no search of it finds them"]
    docs.embed_space("dense")
    assert true_vectors(connection, "docs_dense", WordEmbedder())
    assert connection.execute(counts).fetchone() == (120, 116, 120)


def test_what_uses_the_old_table_is_not_dropped(docs: Collection, connection: psycopg.Connection) -> None:
    docs.swap_model(Other(), sample=5, switch=True)
    connection.execute("CREATE VIEW mine AS SELECT key FROM docs_dense")
    with pytest.raises(SwapError, match=r"docs_dense cannot be dropped: view .*mine depends on table .*docs_dense"):
        docs.drop_swapped()
    with pytest.raises(ConfigurationError, match="is the one that searches of collection"):
        docs.drop_space("others_v2")


@pytest.mark.parametrize(
    ("model", "taken", "name"),
    [
        ("BAAI/bge-small-en-v1.5", (), "bge_small_en_v1"),
        ("sentence-transformers/all-MiniLM-L6-v2", (), "all_minilm_l6_v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", ("all_minilm_l6_v2",), "all_minilm_l6_2"),
        ("openai:text-embedding-3-small", (), "text_embedding_3"),
        ("/models/1b", (), "m_1b"),
        ("keyword", (), "keyword_2"),
        ("漢", (), "model"),
    ],
)
def test_a_space_is_named_as_its_model(model: str, taken: Sequence[str], name: str) -> None:
    assert space_name(model, taken) == name


# Says a line at each step, for the one who kills it.
PROGRAM = """
import sys
from pgvec_toolkit.database import Database
from pgvec_toolkit.ingest import space_embedding
from pgvec_toolkit.collection import swapping
from tests.integration.test_swap import Other
from tests.words import WordEmbedder

space_embedding._TEXTS_AT_ONCE = 20
for step in ("embed_all", "index_like", "compare", "switch", "drop"):
    def said(*arguments, step=step, work=getattr(swapping, step)):
        print(step, flush=True)
        return work(*arguments)
    setattr(swapping, step, said)

docs = Database(sys.argv[1]).collection("docs")
docs._given = {"dense": WordEmbedder(), "others_v2": Other()}
docs._given["others_v2"].before_embedding = lambda: print("embedding", flush=True)
if docs.space.name == "dense":
    docs.swap_model(docs._given["others_v2"], sample=5, switch=True, progress=False)
if docs.model_swap().is_open:
    docs.drop_swapped()
"""
KILLS = int(os.environ.get("PGVEC_INTERRUPTIONS", "3"))


def test_killed_at_any_moment(docs: Collection, dsn: str, connection: psycopg.Connection) -> None:
    docs.create_index()
    moments = random.Random(3)
    # In the suite one in each of the phases; with more of them, anywhere.
    places = [4, 9, 12] if KILLS <= 3 else [moments.randint(1, 13) for _ in range(KILLS)]
    for place in places:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, dsn], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(place):
                if not process.stdout.readline():
                    break
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=60)
        space = default(connection)
        assert space in ("dense", "others_v2")
        if space == "dense":
            assert true_vectors(connection, "docs_dense", WordEmbedder())
        else:
            assert true_vectors(connection, "docs_others_v2", Other())
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, dsn], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert done.returncode == 0
    assert default(connection) == "others_v2"
    assert true_vectors(connection, "docs_others_v2", Other())
    names = (
        "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'docs%'"
    )
    assert connection.execute(names).fetchone() == (["docs", "docs_keywords", "docs_lexemes", "docs_others_v2"],)
    valid = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'docs_others_v2'::regclass"
    assert sorted(connection.execute(valid).fetchall()) == [
        ("docs_others_v2_hnsw", True),
        ("docs_others_v2_pkey", True),
    ]
