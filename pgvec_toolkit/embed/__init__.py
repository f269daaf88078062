"""Text to vectors: the Embedder protocol and the embedders that come with pgvec."""
