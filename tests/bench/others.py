"""Loading the same rows, with the same vectors and metadata, by others, on the same server.

    python -m tests.bench.others [--rows 5000] [--rounds 3] [--python NAME=PATH ...]

Each of langchain-postgres (PGVectorStore and PGVector), vecs and llama-index-vector-stores-postgres is measured if
it can be imported, and is otherwise passed over, with the reason. They are no dependencies of this project, and want
different versions of what they share: --python langchain=/path/to/python runs that one by the Python of a virtual
environment of its own. All get a fresh table, rows in memory, and their own largest documented batches; none has a
vector index. The clock runs around the call that loads; they take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import debian

# Each runs on its own, by any Python: argv is the file of rows and a SQLAlchemy URL without its scheme.
HEAD = """
import pickle, sys, time
rows = pickle.load(open(sys.argv[1], "rb"))
url = sys.argv[2]
ids, texts = [r["id"] for r in rows], [r["text"] for r in rows]
vectors = [r["vector"] for r in rows]
metadatas = [{k: v for k, v in r.items() if k not in ("id", "text", "vector")} for r in rows]
"""
TAIL = """
print("seconds", time.perf_counter() - began)
"""
LANGCHAIN = """
from langchain_core.embeddings import Embeddings
class None_(Embeddings):
    def embed_documents(self, texts): raise AssertionError
    def embed_query(self, text): raise AssertionError
"""
OTHERS = {
    "langchain PGVectorStore": LANGCHAIN
    + """
from langchain_postgres import PGEngine, PGVectorStore
engine = PGEngine.from_connection_string("postgresql+psycopg" + url)
import uuid
engine.init_vectorstore_table("bench_langchain", 384, overwrite_existing=True)
store = PGVectorStore.create_sync(engine, None_(), "bench_langchain")
ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, id)) for id in ids]
began = time.perf_counter()
store.add_embeddings(texts=texts, embeddings=vectors, metadatas=metadatas, ids=ids)
""",
    "langchain PGVector": LANGCHAIN
    + """
from langchain_postgres import PGVector
store = PGVector(None_(), connection="postgresql+psycopg" + url, collection_name="bench", pre_delete_collection=True,
                 embedding_length=384)
began = time.perf_counter()
store.add_embeddings(texts, vectors, metadatas=metadatas, ids=ids)
""",
    "vecs": """
import vecs
client = vecs.create_client("postgresql+psycopg2" + url)
if any(c.name == "bench" for c in client.list_collections()):
    client.delete_collection("bench")
store = client.create_collection(name="bench", dimension=384)
metadatas = [metadata | {"text": text} for text, metadata in zip(texts, metadatas)]
records = list(zip(ids, vectors, metadatas))
began = time.perf_counter()
store.upsert(records=records)
""",
    "llama-index": """
from sqlalchemy import make_url
from llama_index.core.schema import TextNode
from llama_index.vector_stores.postgres import PGVectorStore
parts = make_url("postgresql" + url)
store = PGVectorStore.from_params(connection_string="postgresql+psycopg2" + url,
    async_connection_string="postgresql+asyncpg" + url, table_name="bench", embed_dim=384)
if store._is_initialized is False:
    store._initialize()
store.clear()
nodes = [TextNode(id_=id, text=text, metadata=metadata, embedding=vector)
         for id, text, metadata, vector in zip(ids, texts, metadatas, vectors)]
began = time.perf_counter()
store.add(nodes)
""",
    **{
        f"pgvec, {name}": f"""
import pgvec_toolkit as pgvec
with pgvec.connect("postgresql" + url) as database:
    database.drop_collection("bench_pgvec", if_exists=True)
    store = database.create_collection("bench_pgvec", dimensions=384, keywords={keywords})
    began = time.perf_counter()
    store.upsert(rows, progress=False)
"""
        for name, keywords in (("with a keyword index", True), ("without", False))
    },
}


def url(dsn: str) -> str:
    """Return a DSN as the rest of a URL, which all of them take."""
    from urllib.parse import quote, urlencode

    from psycopg.conninfo import conninfo_to_dict

    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    password = parts.get("password") or ""
    if not password and "passfile" in parts:
        password = Path(parts["passfile"]).read_text().strip().rpartition(":")[2]
    where = urlencode({"host": parts.get("host", "localhost"), "port": parts.get("port", "5432")})
    return f"://{quote(parts.get('user', ''))}:{quote(password)}@/{quote(parts.get('dbname', ''))}?{where}"


def seconds(python: str, name: str, rows: Path, where: str) -> float | str:
    """Return what one took, or why it did not run."""
    environment = (
        os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} if name.startswith("pgvec") else os.environ
    )
    done = subprocess.run(
        [python, "-W", "ignore", "-c", HEAD + OTHERS[name] + TAIL, str(rows), where],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("seconds "):
            return float(line.split()[1])
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def main() -> None:
    """Measure in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    options = parser.parse_args()
    pythons = dict(given.split("=", 1) for given in options.python)
    with debian.connect() as database, tempfile.TemporaryDirectory() as folder:
        records = itertools.islice(debian.records(), options.rows)
        plain: list[dict[str, Any]] = [row | {"vector": row["vector"].tolist()} for row in records]
        file = Path(folder) / "rows.pickle"
        file.write_bytes(pickle.dumps(json.loads(json.dumps(plain))))
        where = url(database.dsn)
        took: dict[str, list[float]] = {name: [] for name in OTHERS}
        skipped: dict[str, str] = {}
        for _ in range(options.rounds):
            for name in OTHERS:
                python = next((path for start, path in pythons.items() if name.startswith(start)), sys.executable)
                found = skipped.get(name) or seconds(python, name, file, where)
                print(f"{name}: {found}", file=sys.stderr, flush=True)
                if isinstance(found, str):
                    skipped[name] = found
                else:
                    took[name].append(found)
        for name, costs in took.items():
            if costs:
                ours = took["pgvec, with a keyword index"]
                ratios = [other / own for other, own in zip(costs, ours, strict=True)]
                print(
                    f"{name:28}{options.rows / statistics.median(costs):9,.0f} rows/s, "
                    f"takes {statistics.median(ratios):.2f} x as long as pgvec with a keyword index"
                )
            else:
                print(f"{name:28}passed over: {skipped[name]}")


if __name__ == "__main__":
    main()
