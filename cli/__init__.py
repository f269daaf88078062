"""The command `pgvec`: each command parses, calls the library once, and prints.

Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 an error that is
explained in one line, 2 wrong usage, 3 done, and something is wrong with the database or with recall,
130 interrupted. The library is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys

import typer
from pgvec_toolkit.cli import (
    advise,
    collections,
    data,
    demo,
    doctor,
    evaluate,
    history,
    indexes,
    loading,
    model,
    models,
    projects,
    rebuilding,
    registering,
    search,
    server,
    tuning,
    watching,
    worker,
)

_INTERRUPTED = 130
app = typer.Typer(
    name="pgvec",
    help="Vector search in PostgreSQL that keeps its promises.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # to markup, "[default: 0.95]" in a help text is a tag, and vanishes
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PGVEC"},
)
demo.add_to(app)
server.add_to(app)
projects.add_to(app)
registering.add_to(collections.app)
app.add_typer(collections.app, name="collection")
data.add_to(app)
loading.add_to(app)
search.add_to(app)
history.add_to(app)
app.add_typer(indexes.app, name="index")
rebuilding.add_to(indexes.app)
app.add_typer(model.app, name="model")
tuning.add_to(app)
advise.add_to(app)
watching.add_to(app)
evaluate.add_to(app)
models.add_to(app)
worker.add_to(app)
doctor.add_to(app)


def main() -> None:
    """Run the command line; turn errors into one line and an exit code."""
    from pgvec_toolkit.errors import PgvecError

    # What the pool would log of its attempts to connect comes out as the error below.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    try:
        app()
    except PgvecError as error:
        _fail(str(error), 1)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of KeyboardInterrupt; of a broken pipe, a silent 1
            _fail("interrupted; what was committed is kept, running it again does the rest", _INTERRUPTED)
        raise
    except Exception as error:
        if type(error).__module__.startswith("psycopg"):
            diagnosis = getattr(error, "diag", None)
            _fail(f"PostgreSQL: {getattr(diagnosis, 'message_primary', None) or error}", 1)
        raise


def _fail(message: str, code: int) -> None:
    typer.echo(f"pgvec: {' '.join(message.split())}", err=True)
    sys.exit(code)
