"""The command line: its help, its whole life on a database, its exit codes, its streams."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import typer
from pgvec_toolkit.cli import app, main
from typer.main import get_command
from typer.testing import CliRunner

from pgvec_toolkit.embed import base
from pgvec_toolkit.embedded import EmbeddedServer

PGVEC = [sys.executable, "-c", "from pgvec_toolkit.cli import main; main()"]
COMMANDS = {
    *("demo", "up", "down", "status", "migrate", "psql", "ingest", "search", "delete", "tune", "recall"),
    *("collection create", "collection list", "collection show", "collection drop"),
    *("index create", "index list", "index drop"),
}


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that forgets its DSN finds no server, least of all the developer's own."""
    monkeypatch.setenv("PGVEC_DSN", "host=127.0.0.1 port=1")
    monkeypatch.setenv("PGVEC_HOME", "/nowhere")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs main() in this process, as the console script does."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pgvec", *arguments])
        capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def run(bare: Run, dsn: str) -> Run:
    """Runs main() on the test's database."""
    return lambda *arguments: bare(*arguments, "--dsn", dsn)


@pytest.fixture
def words(embedder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any embedder that is asked for by name is the tiny one."""
    monkeypatch.setattr(base, "load", lambda _: embedder)


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A folder of forty documents in two sections."""
    folder = tmp_path / "handbook"
    folder.mkdir()
    for number in range(40):
        section = ("security", "kitchen")[number % 2]
        subject = "rotate credentials yearly" if section == "security" else "boil potatoes slowly"
        (folder / f"{number:02}.md").write_text(
            f"---\nsection: {section}\nyear: {2000 + number}\n---\n# Page {number}\n\n{subject} number {number}\n"
        )
    return folder


@pytest.fixture
def docs(run: Run, words: None, handbook: Path) -> Run:
    """A collection `docs` with the handbook in it."""
    del words
    assert (
        run("collection", "create", "docs", "-c", "section:text", "--column", "year:int", "--embedder", "w").code == 0
    )
    assert run("ingest", "docs", str(handbook)).code == 0
    return run


# -- help ------------------------------------------------------------------------------------------


def _commands() -> Iterator[tuple[str, Any, Any]]:
    def walk(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            below = type(context)(inner, parent=context, info_name=name, **inner.context_settings)
            if hasattr(inner, "commands"):
                assert inner.help
                yield from walk(inner, below)
            else:
                yield below.command_path.removeprefix("pgvec "), inner, below

    root = get_command(app)
    yield from walk(root, root.context_class(root, info_name="pgvec", **root.context_settings))


def test_the_commands_are_these() -> None:
    assert {path for path, *_ in _commands()} == COMMANDS


@pytest.mark.parametrize(("path", "command", "context"), list(_commands()), ids=lambda value: str(value)[:30])
def test_everything_is_explained_and_can_come_from_the_environment(path: str, command: Any, context: Any) -> None:
    assert command.help
    shown = CliRunner().invoke(app, [*path.split(), "--help"], terminal_width=400, env={"COLUMNS": "400"})
    assert shown.exit_code == 0
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            assert parameter.help, parameter.name
            continue
        assert parameter.help, parameter.name
        variable = parameter.envvar or f"{context.auto_envvar_prefix}_{parameter.name.upper()}"
        assert variable.startswith("PGVEC_")
        assert f"[env var: {variable}]" in " ".join(re.sub("[│╭╮╰╯─]", " ", shown.stdout).split()), parameter.name


def test_an_option_comes_from_the_environment(docs: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVEC_SEARCH_K", "3")
    monkeypatch.setenv("PGVEC_SEARCH_WHERE", '{"section": "kitchen"}')
    hits = docs("search", "docs", "credentials", "--json").json
    assert [hit["metadata"]["section"] for hit in hits] == ["kitchen"] * 3
    assert len(docs("search", "docs", "credentials", "-k", "2", "--json").json) == 2


@pytest.mark.parametrize("arguments", [["--help"], ["collection", "create", "--help"], ["search", "-h"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from pgvec_toolkit.cli import main
sys.argv = ['pgvec', *{arguments!r}]
try:
    main()
finally:
    heavy = {{'torch', 'numpy', 'sqlalchemy', 'alembic', 'psycopg', 'psycopg_pool', 'pgvector', 'transformers'}}
    print(*heavy & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert "Usage" in done.stdout


# -- a whole life ----------------------------------------------------------------------------------


def test_a_whole_life(bare: Run, empty_dsn: str, words: None, handbook: Path) -> None:
    del words

    def run(*arguments: str) -> Outcome:
        return bare(*arguments, "--dsn", empty_dsn)

    assert run("migrate") == Outcome(0, "", "schema pgvec is up to date\n")
    assert run("migrate") == Outcome(0, "", "schema pgvec is up to date\n")
    assert run("collection", "list", "--json").json == []

    made = run("collection", "create", "docs", "-c", "section:text", "-c", "year:int", "--embedder", "w")
    assert made == Outcome(0, "", "collection docs is there\n")
    loaded = run("ingest", "docs", str(handbook))
    assert (loaded.code, loaded.out) == (0, "")
    assert "40 documents, 0 of them unchanged; 40 chunks written" in loaded.err
    assert "40 of them unchanged; 0 chunks written" in run("ingest", "docs", str(handbook)).err

    (listed,) = run("collection", "list", "--json").json
    assert listed["collection"] == "docs"
    assert (listed["dimensions"], listed["distance"], listed["model"]) == (64, "cosine", "test/words")
    assert "docs" in run("collection", "list").out
    shown = run("collection", "show", "docs", "--json").json
    assert shown["rows"] == 40
    assert shown["columns"] == {"section": "text", "year": "bigint"}
    assert (shown["chunk_table"], shown["vector_table"], shown["indexes"]) == ("public.docs", "public.docs_dense", [])

    no_index = run("tune", "docs")
    assert no_index.code == 1
    assert "no vector index to tune" in no_index.err
    assert run("index", "create", "docs").err.startswith("index docs_dense_hnsw was built in ")
    second = run("index", "create", "docs", "ivfflat")
    assert (second.code, second.err) == (1, "pgvec: docs_dense has a vector index, docs_dense_hnsw: drop it first\n")
    indexes = run("index", "list", "docs", "--json").json
    assert [(index["method"], index["valid"]) for index in indexes] == [("hnsw", True)]
    assert "docs_dense_hnsw" in run("index", "list", "docs").out
    assert "ef_construction=64" in run("collection", "show", "docs").out

    tuned = run("tune", "docs", "--recall", "0.9", "-k", "5", "--json").json
    assert tuned["recall"] >= 0.9
    assert (tuned["k"], tuned["parameter"]) == (5, "hnsw.ef_search")
    assert "hnsw.ef_search = " in run("tune", "docs", "--recall", "0.9", "-k", "5").out
    measured = run("recall", "docs", "-k", "5", "--sample", "10", "--json").json
    assert (measured["recall"], measured["queries"], measured["short_results"]) == (1.0, 10, 0)
    assert run("recall", "docs", "--where", '{"section": "kitchen"}').out.startswith("recall@10 ")

    assert "rotate credentials" in run("search", "docs", "rotate credentials", "-k", "1").out
    filtered = run(
        "search", "docs", "rotate credentials", "--where", '{"section": "kitchen", "year": {"$lt": 2010}}', "--json"
    )
    assert {hit["metadata"]["section"] for hit in filtered.json} == {"kitchen"}
    assert [hit["rank"] for hit in filtered.json] == [1, 2, 3, 4, 5]
    exact = run("search", "docs", "boil potatoes", "--exact", "--json").json
    assert exact == run("search", "docs", "boil potatoes", "--json").json
    assert run("search", "docs", "boil", "--where", '{"section": "attic"}') == Outcome(
        0, "", "nothing matches the filter\n"
    )
    assert run("search", "docs", "boil", "--where", '{"section": "attic"}', "--json").json == []

    assert run("index", "drop", "docs", "docs_dense_hnsw").err == "dropped: docs_dense_hnsw\n"
    assert run("index", "create", "docs", "ivfflat", "--lists", "2", "--concurrently").code == 0
    assert run("index", "drop", "docs").err == "dropped: docs_dense_ivfflat\n"
    assert run("index", "drop", "docs").err == "dropped: nothing\n"
    deleted = run("search", "docs", "boil", "-k", "1", "--json").json[0]["document_id"]
    assert run("delete", "docs", deleted).err == "1 chunks deleted\n"
    assert run("delete", "docs", deleted).err == "0 chunks deleted\n"
    status = run("status", "--json").json
    assert (status["kind"], status["schema"], status["collections"]) == ("your server", "up to date", ["docs"])
    assert run("collection", "drop", "docs", "--yes") == Outcome(0, "", "collection docs is gone\n")
    assert run("status", "--json").json["collections"] == []
    assert run("migrate", "--down-to", "base").code == 0
    assert "pgvec migrate" in run("status", "--json").json["schema"]


def test_the_sql_that_is_printed_is_what_a_search_runs(
    docs: Run, connection: psycopg.Connection, embedder: Any
) -> None:
    where = '{"section": "security"}'
    text = docs("search", "docs", "rotate", "-k", "3", "--where", where, "--sql").out
    connection.execute(f"PREPARE printed (vector, jsonb) AS {text}")
    query = "[" + ",".join(map(str, embedder.embed_query("rotate"))) + "]"
    rows = connection.execute(f"EXECUTE printed ('{query}', '{where}')").fetchall()
    assert [row[0] for row in rows] == [
        hit["id"] for hit in docs("search", "docs", "rotate", "-k", "3", "--where", where, "--json").json
    ]


def test_queries_are_read_from_files(docs: Run, tmp_path: Path, embedder: Any) -> None:
    texts = tmp_path / "queries.txt"
    texts.write_text("rotate credentials\n\nboil potatoes\n")
    assert docs("recall", "docs", "--queries", str(texts), "--json").json["queries"] == 2
    np.save(tmp_path / "queries.npy", np.stack([embedder.embed_query(str(number)) for number in range(3)]))
    assert docs("recall", "docs", "--queries", str(tmp_path / "queries.npy"), "--json").json["queries"] == 3


def test_brackets_in_the_data_are_not_markup(run: Run, words: None, tmp_path: Path) -> None:
    del words
    (tmp_path / "a.txt").write_text("press [bold]enter[/bold] twice")
    assert run("collection", "create", "docs", "--embedder", "w").code == 0
    assert run("ingest", "docs", str(tmp_path / "a.txt")).code == 0
    assert "press [bold]enter[/bold] twice" in run("search", "docs", "enter").out


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_dropping_a_collection_asks(docs: Run, dsn: str, answer: str, gone: bool) -> None:
    asked = CliRunner().invoke(app, ["collection", "drop", "docs", "--dsn", dsn], input=answer)
    assert asked.exit_code == (0 if gone else 1)
    assert "Drop collection docs and its 40 rows?" in asked.stderr
    assert "Drop" not in asked.stdout  # nothing but the answer, which the runner echoes
    assert len(docs("collection", "list", "--json").json) == (0 if gone else 1)


def test_migrations_as_sql_need_no_server(bare: Run) -> None:
    printed = bare("migrate", "--sql", "--dsn", "host=127.0.0.1 port=1")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.startswith("BEGIN;")
    assert printed.out.rstrip().endswith("COMMIT;")


# -- what goes wrong -------------------------------------------------------------------------------


def _is_one_line(outcome: Outcome, wanted: str) -> None:
    assert outcome.code == 1, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"pgvec: [^\n]+\n", outcome.err), outcome.err
    assert re.search(wanted, outcome.err), outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["collection", "show", "nothing"], ["collection", "drop", "nothing", "--yes"], ["ingest", "nothing", "."]),
        *(["search", "nothing", "x"], ["index", "create", "nothing"], ["index", "drop", "nothing"]),
        *(["tune", "nothing"], ["recall", "nothing"], ["index", "list", "nothing"]),
    ],
    ids=" ".join,
)
def test_an_unknown_collection_is_one_line(run: Run, arguments: list[str]) -> None:
    _is_one_line(run(*arguments), "there is no collection 'nothing'.*create one")


@pytest.mark.parametrize("command", [["collection", "list"], ["status"], ["migrate"], ["migrate", "--down-to", "base"]])
def test_an_unreachable_server_is_one_line(bare: Run, command: list[str]) -> None:
    _is_one_line(bare(*command, "--dsn", "host=127.0.0.1 port=1"), "no connection to PostgreSQL.*port 1 failed")


@pytest.mark.parametrize("command", [["collection", "list"], ["status"], ["migrate"], ["psql"]])
def test_a_bad_dsn_is_one_line(bare: Run, command: list[str]) -> None:
    _is_one_line(bare(*command, "--dsn", "bla"), "not a PostgreSQL connection string")


def test_an_unmigrated_database_is_one_line(bare: Run, empty_dsn: str) -> None:
    _is_one_line(bare("collection", "list", "--dsn", empty_dsn), "run `pgvec migrate`")
    shown = bare("status", "--json", "--dsn", empty_dsn)
    assert shown.code == 0
    assert "pgvec migrate" in shown.json["schema"]


def test_other_errors_are_one_line(docs: Run, tmp_path: Path) -> None:
    _is_one_line(docs("search", "docs", "x", "--where", '{"year": {"$near": 3}}'), r"\$near")
    _is_one_line(docs("search", "docs", " "), "query is empty")
    _is_one_line(docs("search", "docs", "x", "-k", "10001"), "k must be")
    _is_one_line(docs("index", "create", "docs", "btree"), "use hnsw or ivfflat")
    _is_one_line(docs("index", "create", "docs", "--m", "1"), "m must be from 2 to 100")
    _is_one_line(docs("index", "drop", "docs", "docs_pkey"), "no vector index")
    _is_one_line(docs("ingest", "docs", str(tmp_path / "absent")), "no file or folder")
    _is_one_line(docs("collection", "create", "docs", "--dimensions", "3"), "exists already")
    _is_one_line(docs("collection", "create", "Docs", "--dimensions", "3"), "cannot be the name")
    _is_one_line(docs("collection", "create", "more", "--dimensions", "3", "-c", "x:blob"), "unknown column type")
    _is_one_line(docs("collection", "create", "more", "--dimensions", "3", "--language", "klingon"), "klingon")
    _is_one_line(docs("collection", "create", "more", "--dimensions", "3", "--schema", "absent"), "absent")
    _is_one_line(docs("migrate", "--down-to", "base"), "still has collections")
    _is_one_line(docs("migrate", "--down-to", "nonsense"), "nonsense")
    assert docs("collection", "list", "--json").json[0]["collection"] == "docs"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["search", "docs", "x", "--where", "{"], "--where.*not JSON"),
        (["search", "docs", "x", "--where", "[1]"], "--where.*JSON object"),
        (["recall", "docs", "--where", "x"], "--where.*not JSON"),
        (["collection", "create", "docs", "--column", "year"], "--column.*name:type"),
        (["collection", "create", "docs", "--column", ":int"], "--column.*name:type"),
        (["collection", "create", "docs", "--dimensions", "many"], "--dimensions"),
        (["search", "docs", "x", "-k", "0"], "-k"),
        (["search", "docs", "x", "--nonsense"], "--nonsense"),
        (["search", "docs"], "query"),
        (["nonsense"], "nonsense"),
        (["collection", "nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_2_and_explained(bare: Run, arguments: list[str], wanted: str) -> None:
    outcome = bare(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert re.search(wanted, re.sub(r"[\s│]+", " ", outcome.err)), outcome.err


@pytest.mark.parametrize("name", ["absent.txt", "absent.npy"])
def test_a_query_file_that_is_absent_is_wrong_usage(docs: Run, name: str) -> None:
    outcome = docs("recall", "docs", "--queries", f"/nowhere/{name}")
    assert outcome.code == 2
    assert "--queries" in outcome.err


# -- interrupted -----------------------------------------------------------------------------------

SLOW = """
import sys
import numpy as np
from pgvec_toolkit.embed import base

class Slow:
    name, dimensions, batches = "test/slow", 4, 0
    def embed_query(self, text):
        return np.ones(4, np.float32)
    def embed_documents(self, texts):
        import time
        self.batches += 1
        if self.batches > 2:
            print("third batch", flush=True)
            time.sleep(600)
        return np.ones((len(texts), 4), np.float32)

base.load = lambda name: Slow()
from pgvec_toolkit.cli import main
main()
"""


def test_an_interrupted_ingest_keeps_what_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch, dsn: str, tmp_path: Path, connection: psycopg.Connection
) -> None:
    lines = [json.dumps({"id": f"d{number}", "text": f"text {number}"}) for number in range(5000)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))

    class Quick:
        name, dimensions = "test/slow", 4

        def embed_query(self, text: str) -> Any:
            del text
            return np.ones(4, np.float32)

        def embed_documents(self, texts: list[str]) -> Any:
            return np.ones((len(texts), 4), np.float32)

    monkeypatch.setattr(base, "load", lambda _: Quick())
    assert run("collection", "create", "docs", "--embedder", "w").code == 0
    command = [sys.executable, "-c", SLOW, "ingest", "docs", str(tmp_path / "many.jsonl"), "--dsn", dsn]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "third batch\n"
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"pgvec: interrupted; [^\n]+\n", complaints), complaints
    counts = (
        "SELECT (SELECT count(*) FROM docs), (SELECT count(*) FROM docs_dense), (SELECT count(*) FROM pgvec.ledger)"
    )
    chunks, vectors, documents = connection.execute(counts).fetchone() or (0, 0, 0)
    assert 0 < chunks == vectors == documents < 5000
    again = run("ingest", "docs", str(tmp_path / "many.jsonl"))
    assert f"5000 documents, {documents} of them unchanged; {5000 - documents} chunks written" in again.err
    assert connection.execute(counts).fetchone() == (5000, 5000, 5000)


def test_a_reader_that_leaves_is_no_error(dsn: str, docs: Run) -> None:
    del docs
    for arguments in (["collection", "list"], ["migrate", "--sql"], ["collection", "show", "docs", "--json"]):
        with subprocess.Popen(
            [*PGVEC, *arguments, "--dsn", dsn], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.close()  # before anything is written
            assert process.stderr is not None
            assert process.stderr.read() == "", arguments


# -- the embedded server ---------------------------------------------------------------------------


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of one's own for the embedded server; as root, one that the server's user may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="pgvec-test-"))
    folder.chmod(0o711)
    monkeypatch.delenv("PGVEC_DSN")
    monkeypatch.setenv("PGVEC_HOME", str(folder / "home"))
    try:
        yield folder / "home"
    finally:
        EmbeddedServer(folder / "home").stop("immediate")
        shutil.rmtree(folder)


def test_the_embedded_server_from_the_command_line(bare: Run, home: Path) -> None:
    before = bare("status", "--json")
    assert (before.json["kind"], before.json["running"], before.json["home"]) == ("embedded", False, str(home))
    assert not home.exists()
    assert "no PostgreSQL was running" in bare("down").err

    up = bare("up")
    assert (up.code, up.err) == (0, f"PostgreSQL runs in {home}\n")
    with psycopg.connect(up.out.strip()) as session:
        assert session.execute("SELECT pgvec.create_collection('docs', 2)").fetchone() is not None
    assert bare("up").out == up.out
    status = bare("status", "--json").json
    assert (status["running"], status["schema"], status["collections"]) == (True, "up to date", ["docs"])
    assert bare("status").code == 0

    asked = subprocess.run(
        [*PGVEC, "psql", "-X", "-At", "-c", "SELECT 1", "-c", "SELECT count(*) FROM pgvec.collections"],
        capture_output=True,
        text=True,
    )
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "1\n1\n", "")
    wrong = subprocess.run([*PGVEC, "psql", "-X", "-c", "SELECT nonsense"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "nonsense" in wrong.stderr

    assert "has stopped" in bare("down").err
    stopped = bare("status", "--json").json
    assert (stopped["running"], stopped["pid"]) == (False, None)
    assert not EmbeddedServer(home).status().running
    assert bare("migrate").code == 0  # starts it
    assert EmbeddedServer(home).status().running
    assert bare("collection", "list", "--json").json[0]["collection"] == "docs"


# -- with the real model ---------------------------------------------------------------------------


@pytest.mark.embedding
def test_the_default_embedder(run: Run, handbook: Path) -> None:
    assert run("collection", "create", "docs", "-c", "section:text").code == 0
    ingested = run("ingest", "docs", str(handbook), "--chunk-tokens", "64")
    assert (ingested.code, ingested.out) == (0, "")
    (listed,) = run("collection", "list", "--json").json
    assert (listed["dimensions"], listed["model"]) == (384, "sentence-transformers/all-MiniLM-L6-v2")
    found = run("search", "docs", "changing passwords", "-k", "5", "--json")
    assert found.err == ""
    assert {hit["metadata"]["section"] for hit in found.json} == {"security"}


@pytest.mark.embedding
def test_the_demo_twice(run: Run) -> None:
    for _ in range(2):
        shown = run("demo")
        assert shown.code == 0, shown.err
        plain, filtered = re.split("“what happens when the power fails”", shown.out)[1:]
        hits = [re.findall(r"^ *\d +\d\.\d{4} +(.*?)\s*$", part, re.MULTILINE) for part in (plain, filtered)]
        assert [len(each) for each in hits] == [3, 3]
        assert hits[0] != hits[1]
        assert all(hit.startswith("warehouse ") for hit in hits[1])
        assert not all(hit.startswith("warehouse ") for hit in hits[0])
        (recall,) = re.findall(r"recall@10 now: (\d\.\d+)", shown.out)
        assert float(recall) >= 0.95
        assert "ingested the handbook: " in shown.err
    assert [each["collection"] for each in run("collection", "list", "--json").json] == ["demo_handbook"]


def test_the_app_is_the_console_script() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="pgvec")
    assert script.load() is main
    assert isinstance(app, typer.Typer)
