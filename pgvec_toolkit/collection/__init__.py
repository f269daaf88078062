"""A collection, as Python sees it: every method is one call of the module that does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from pgvec_toolkit.collection.advising import Advising
from pgvec_toolkit.collection.ingesting import Ingesting
from pgvec_toolkit.collection.rebuilding import Rebuilding
from pgvec_toolkit.collection.remembering import Remembering
from pgvec_toolkit.collection.searching import Searching
from pgvec_toolkit.collection.swapping import Swapping
from pgvec_toolkit.collection.warming import Warming
from pgvec_toolkit.collection.watching import Watching
from pgvec_toolkit.collection.writing import Writing
from pgvec_toolkit.embed import kinds
from pgvec_toolkit.embed.base import DEFAULT_EMBEDDER, Embedder
from pgvec_toolkit.embed.registry import register
from pgvec_toolkit.greenlets import outside
from pgvec_toolkit.schema import space as spaces
from pgvec_toolkit.schema.columns import sql_types

if TYPE_CHECKING:
    from pgvec_toolkit.evaluate.beir import Qrels
    from pgvec_toolkit.evaluate.evaluation import Evaluation, Mode
    from pgvec_toolkit.evaluate.fit import Fitted
    from pgvec_toolkit.pool import Pool
    from pgvec_toolkit.schema.space import Space


class Collection(
    Swapping,
    Writing,
    Ingesting,
    Searching,
    Rebuilding,
    Advising,
    Watching,
    Warming,
    Remembering,
):
    """A collection of chunks that can be searched; get one from `Database.collection` or `create_collection`."""

    @classmethod
    def create(
        cls,
        database: Pool,
        name: str,
        *,
        embedder: Embedder | str | None,
        dimensions: int | None,
        type: str | None,
        distance: str | None,
        columns: Mapping[str, Any],
        language: str,
        schema: str,
        keywords: bool,
    ) -> Collection:
        """Create the collection and its tables, in one transaction with the registration of its model."""
        if embedder is None and dimensions is None:
            embedder = DEFAULT_EMBEDDER
        loaded = kinds.load(embedder) if isinstance(embedder, str) else embedder
        shape = spaces.shape_of(loaded, dimensions, type, distance)
        with database.connection() as connection, connection.transaction():
            connection.execute(
                "SELECT pgvec.create_collection(%s, %s::integer, distance => %s, columns => %s, language => %s, "
                "schema => %s, model_id => %s::integer, type => %s, keywords => %s)",
                [
                    name,
                    shape.dimensions,
                    shape.distance,
                    Jsonb(sql_types(columns)),
                    language,
                    schema,
                    None if loaded is None else register(connection, loaded),
                    shape.type,
                    keywords,
                ],
            )
        return cls.open(database, name, embedder=loaded)

    @classmethod
    def register(
        cls,
        database: Pool,
        relation: str,
        *,
        name: str | None,
        embedder: Embedder | str | None,
        distance: str | None,
        columns: Mapping[str, str | None],
        space: str,
        language: str,
        keywords: bool,
    ) -> Collection:
        """Make a table a collection, in one transaction with the registration of its model."""
        loaded = kinds.load(embedder) if isinstance(embedder, str) else embedder
        with database.connection() as connection, connection.transaction():
            row = connection.execute(
                "SELECT pgvec.register_table(%s::regclass, %s, text => %s, key => %s, id => %s, metadata => %s,"
                " name => %s, distance => %s, space => %s, language => %s, model_id => %s::integer, keywords => %s)",
                [
                    *(relation, *(columns[part] for part in ("embedding", "text", "key", "id", "metadata"))),
                    *(name, spaces.distance_for(loaded, distance), space, language),
                    *(None if loaded is None else register(connection, loaded), keywords),
                ],
            ).fetchone()
            assert row is not None
            spaces.check_fits(connection, row[0], None, loaded)
        return cls.open(database, row[0], embedder=loaded)

    @classmethod
    def open(cls, database: Pool, name: str, *, embedder: Embedder | str | None) -> Collection:
        """Open the collection; its embedder is loaded when text first has to be embedded."""
        space = spaces.find(database, name)
        if isinstance(embedder, str):
            embedder = None if embedder == space.model else outside(_opened_with, embedder, space)
        return cls(database, name, space, embedder)

    def evaluate(
        self,
        queries: Mapping[str, str] | str | Path,
        qrels: Qrels | str | Path,
        *,
        modes: Sequence[str] | Mapping[str, str | Mode] = ("dense", "keyword", "hybrid"),
        k: int = 10,
        depth: int = 100,
        fusion: str = "relative",
        seed: int = 0,
        progress: bool | None = None,
    ) -> Evaluation:
        """Run judged queries in several modes and compare what they find by nDCG, MRR, recall and MAP.

        Args:
            queries: query id to text, or the path of a queries.jsonl (BEIR).
            qrels: query id to document id to grade, or the path of judgements, BEIR's or TREC's.
            modes: "dense", "keyword", "hybrid", "space:<name>"; or a mapping of names of your own to these or to
                functions of a text that return hits: other collections, models, rerankers. The others are compared
                with the first one.
            k: of the metrics.
            depth: how many chunks each search fetches, and each leg of "hybrid"; of a document its best one counts.
            fusion: of "hybrid".
            seed: of the bootstrap.
            progress: whether to show a bar; None: on a terminal.
        """
        from pgvec_toolkit.evaluate.evaluation import evaluate

        return evaluate(
            self, queries, qrels, modes=modes, k=k, depth=depth, fusion=fusion, seed=seed, progress=progress
        )

    def fit_weights(
        self,
        queries: Mapping[str, str] | str | Path,
        qrels: Qrels | str | Path,
        *,
        fusion: str = "relative",
        legs: Sequence[str] | Mapping[str, str | Mode] | None = None,
        metric: str = "ndcg@10",
        train: float = 0.5,
        depth: int = 100,
        rrf_k: float = 60,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Fitted:
        """Find the weights of `hybrid_search` that are best for some judged queries, and judge them by the others.

        Args:
            queries: as `evaluate` takes them.
            qrels: as `evaluate` takes them.
            fusion: relative, dbsf, rrf or weighted.
            legs: at least two of those of `hybrid_search`; None: the default space and keyword.
            metric: what to maximise: ndcg, mrr, recall or map, @k.
            train: the share of the queries that the weights are fitted to.
            depth: how many chunks each leg brings.
            rrf_k: of rrf.
            seed: of the split and of the intervals.
            progress: whether to show a bar; None: on a terminal.

        Raises:
            TuningError: there are too few judged queries.
        """
        from pgvec_toolkit.evaluate.fit import fit_weights

        return fit_weights(
            self,
            queries,
            qrels,
            fusion=fusion,
            legs=legs,
            metric=metric,
            train=train,
            depth=depth,
            rrf_k=rrf_k,
            seed=seed,
            progress=progress,
        )


def _opened_with(spec: str, space: Space) -> Embedder:
    """Return the embedder of a spec; if it is the space's own, with what that was given beside its name."""
    loaded = kinds.load(spec)
    if loaded.name != space.model:
        return loaded
    # What kind it is may have been told by the model's own configuration.
    prefix = "" if kinds.kind_of_spec(spec).prefix else kinds.kind_of_spec(loaded.name).prefix
    return kinds.load(prefix + spec, space.model_details, trust=True)
