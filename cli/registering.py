"""collection register, unregister: tables of yours as collections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pgvec_toolkit.cli.options import Config, Dsn, Head, Name, Revision, connect
from pgvec_toolkit.cli.output import say


def add_to(app: typer.Typer) -> None:
    """Add the commands to `pgvec collection`."""
    app.command()(register)
    app.command()(unregister)


def register(
    table: Annotated[str, typer.Argument(help="The table, as products or shop.products.", show_default=False)],
    text: Annotated[
        str | None, typer.Option(help="Column of the text, which hits show and keyword searches search.")
    ] = None,
    embedding: Annotated[str, typer.Option(help="The vector column.")] = "embedding",
    key: Annotated[
        str | None,
        typer.Option(
            help="Column of whole numbers, unique and not null. [default: the primary key]", show_default=False
        ),
    ] = None,
    id: Annotated[
        str | None, typer.Option(help="Column that hits name rows by. [default: the key]", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the collection. [default: that of the table]", show_default=False)
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(help="[default: what its vector index is built for, else cosine]", show_default=False),
    ] = None,
    space: Annotated[str, typer.Option(help="Name of the vector space.")] = "dense",
    embedder: Annotated[
        str | None,
        typer.Option(help="What made the vectors: queries can then be texts. See `pgvec models --kinds`."),
    ] = None,
    language: Annotated[str, typer.Option(help="Text search configuration of the texts.")] = "english",
    keywords: Annotated[
        bool, typer.Option("--keywords/--no-keywords", help="Whether it gets a keyword index, kept by triggers.")
    ] = False,
    metadata: Annotated[str | None, typer.Option(help="A jsonb column whose keys can be filtered by.")] = None,
    revision: Revision = False,
    config: Config = Path("alembic.ini"),
    head: Head = "head",
    dsn: Dsn = None,
) -> None:
    """Make a table of yours with a vector column a collection. Example: pgvec collection register products."""
    options: dict[str, Any] = {"text": text, "embedding": embedding, "key": key, "id": id, "metadata": metadata}
    options |= {"name": name, "distance": distance, "space": space, "language": language, "keywords": keywords}
    if revision:
        from pgvec_toolkit.alembic.writing import write_registration

        typer.echo(write_registration(config, table, head=head, embedder=embedder, **options))
        return
    registered = connect(dsn).register_table(table, embedder=embedder, **options)
    its = registered.space
    what = f"{its.type}({its.dimensions}), {its.distance}"
    say(f"table {its.schema}.{its.chunk_table} is collection {registered.name}: {what}")


def unregister(name: Name, dsn: Dsn = None) -> None:
    """Have a table be a collection no longer; the table and its indexes stay."""
    connect(dsn).unregister_table(name)
    say(f"{name} is no collection any more; its table is as it was")
