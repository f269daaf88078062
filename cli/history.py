"""history, purge."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, Name, Neighbours, Space, Where, collection, parse_filter
from pgvec_toolkit.cli.output import excerpt, print_json, print_table, say

app = typer.Typer(help="What a collection was: search it, bring it back.", no_args_is_help=True)
AsOf = Annotated[
    str,
    typer.Option("--as-of", help="The time, as PostgreSQL reads it: 2026-11-20, 'yesterday', '2026-11-20 14:30+01'."),
]
Documents = Annotated[list[str], typer.Argument(help="Ids of documents.", show_default=False)]


@app.command()
def on(name: Name, dsn: Dsn = None) -> None:
    """Keep earlier versions of chunks and vectors from now on."""
    collection(name, dsn).create_history()
    say(f"collection {name} keeps its history from now on")


@app.command()
def off(name: Name, dsn: Dsn = None) -> None:
    """Drop the history; what the collection is now stays."""
    had = collection(name, dsn).drop_history()
    say(f"the history of {name} is gone" if had else f"collection {name} had no history")


@app.command()
def versions(
    name: Name,
    document: Annotated[str, typer.Argument(help="Id of a document.", show_default=False)],
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """List the versions of a document."""
    found = collection(name, dsn).versions(document)
    if as_json:
        print_json([asdict(version) for version in found])
        return
    rows = [(v.version, v.valid_from or "before the history", v.valid_to or "as it is now", v.chunks) for v in found]
    print_table(["version", "from", "to", "chunks"], rows)


@app.command()
def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    as_of: AsOf,
    k: Neighbours = 10,
    where: Where = None,
    space: Space = None,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """Search what was there at a time."""
    hits = collection(name, dsn).search_as_of(query, as_of, k, parse_filter(where), space=space)
    if as_json:
        print_json([hit.to_dict() for hit in hits])
        return
    print_table(["rank", "similarity", "id", "text"], [(h.rank, h.similarity, h.id, excerpt(h.text)) for h in hits])


@app.command()
def restore(name: Name, documents: Documents, as_of: AsOf, dsn: Dsn = None) -> None:
    """Bring documents back as they were; those that were not there then are deleted."""
    say(f"{collection(name, dsn).restore(documents, as_of)} chunks restored")


def purge(
    name: Name,
    documents: Annotated[
        list[str] | None, typer.Argument(help="Ids of documents. [default: all]", show_default=False)
    ] = None,
    before: Annotated[str, typer.Option(help="Versions that ended by then, as PostgreSQL reads it.")] = "now",
    dsn: Dsn = None,
) -> None:
    """Forget the history of a collection, or of some documents, for good; what is there now stays."""
    gone = collection(name, dsn).purge(before, documents or None)
    say(f"{gone} earlier versions of chunks are gone")


def add_to(app_: typer.Typer) -> None:
    """Add the commands."""
    app_.add_typer(app, name="history")
    app_.command()(purge)
