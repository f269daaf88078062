"""models, models export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pgvec_toolkit.cli.options import Dsn, Json, connect
from pgvec_toolkit.cli.output import print_json, print_table, say, size

_FINGERPRINT = 12  # characters shown
listing = typer.Typer(
    help="Embedding models: those of the database, and the kinds that there are.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@listing.callback()
def models(
    context: typer.Context,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Which kinds of embedders there are, what they need, and their options.")
    ] = False,
    dsn: Dsn = None,
    as_json: Json = False,
) -> None:
    """List the embedding models of the database, and the vector spaces that hold their vectors."""
    if context.invoked_subcommand is not None:
        return
    if kinds:
        _print_kinds(as_json)
        return
    found = connect(dsn).models()
    if as_json:
        print_json([asdict(model) for model in found])
        return
    print_table(
        ("model", "dimensions", "max_tokens", "fingerprint", "spaces"),
        ((m.name, m.dimensions, m.max_tokens, m.fingerprint[:_FINGERPRINT], ", ".join(m.spaces)) for m in found),
    )


@listing.command()
def export(
    name: Annotated[str, typer.Argument(help="Model of sentence-transformers, or its folder.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where the file is written, into onnx/.", show_default=False)],
    to: Annotated[str, typer.Option(help="Format: onnx, which onnxruntime and OpenVINO read.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise: a quarter of the size, faster on CPUs, a little less exact.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a model as an ONNX file, which needs no PyTorch. Example: pgvec models export all-MiniLM-L6-v2 minilm."""
    if to != "onnx":
        raise typer.BadParameter(f"{to!r}: the format is onnx", param_hint="--to")
    from pgvec_toolkit.embed.export import export_onnx

    done = export_onnx(name, folder, int8=int8)
    if as_json:
        print_json(asdict(done))
        return
    say(f"{done.file}: {size(done.size)}; cosine of its vectors with the model's own: at least {done.similarity:.5f}")
    typer.echo(done.spec)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(listing, name="models")


def _print_kinds(as_json: bool) -> None:
    from pgvec_toolkit.embed.kinds import KINDS

    kinds = [
        {
            "prefix": kind.prefix,
            "makes": kind.makes,
            "install": f"pip install 'pgvec-toolkit[{kind.extra}]'" if kind.extra else None,
            "example": kind.example,
            "options": sorted(kind.options),
        }
        for kind in KINDS
    ]
    if as_json:
        print_json(kinds)
        return
    print_table(("example", "what it is", "extra"), ((k.example, k.makes, k.extra) for k in KINDS))
    print_table(
        ("kind", "options, after a ? and with & between them"),
        ((k.prefix or "(none)", ", ".join(sorted(k.options))) for k in KINDS if k.options),
    )
