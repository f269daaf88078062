"""Tables of users as collections, which are searched where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgvec_toolkit.pool import Pool

if TYPE_CHECKING:
    from pgvec_toolkit.collection import Collection
    from pgvec_toolkit.embed.base import Embedder


class Registering(Pool):
    """Methods that register tables."""

    def register_table(
        self,
        relation: str,
        *,
        text: str | None = None,
        embedding: str = "embedding",
        key: str | None = None,
        id: str | None = None,
        name: str | None = None,
        distance: str | None = None,
        space: str = "dense",
        embedder: Embedder | str | None = None,
        language: str = "english",
        keywords: bool = False,
        metadata: str | None = None,
    ) -> Collection:
        """Make a table with a vector column a collection: searched, tuned and watched (SQL: `pgvec.register_table`).

        Nothing is copied, and the table is only read; its columns are typed columns. It, and they, may be renamed.

        Args:
            relation: the table; its name is looked up as in a statement.
            text: the column of its text, which hits show and keyword searches search.
            embedding: its vector column.
            key: a column of whole numbers that is unique and not null; None: the primary key.
            id: the column that hits name rows by; None: the key.
            name: of the collection; None: that of the table.
            distance: by which vectors are compared; None: what its vector index is built for, else cosine.
            space: the name of the vector space that `embedding` is.
            embedder: what made the vectors, an Embedder or the spec of one: queries can then be texts, and
                `Collection.embed_space` fills rows that have no vector.
            language: text search configuration by which texts become words.
            keywords: whether it gets a keyword index, which triggers on the table keep.
            metadata: a jsonb column, whose keys can be filtered by.
        """
        from pgvec_toolkit.collection import Collection

        columns = {"embedding": embedding, "text": text, "key": key, "id": id, "metadata": metadata}
        return Collection.register(
            self,
            relation,
            name=name,
            embedder=embedder,
            distance=distance,
            columns=columns,
            space=space,
            language=language,
            keywords=keywords,
        )

    def unregister_table(self, name: str) -> None:
        """Have a table be a collection no longer; the table stays as it is (SQL: `pgvec.unregister_table`)."""
        self.fetch("SELECT pgvec.unregister_table($1)", [name])
