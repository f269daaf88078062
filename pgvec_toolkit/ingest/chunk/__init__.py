"""Cutting documents into chunks that the embedder reads whole, measured by its own tokenizer.

Chunkers cut (split.py, markdown.py, sentences.py, or one of the user's own); the cutter hands them what they need,
gives chunks their context, and sees to it that none is longer than the embedder reads without that being counted.
"""

from pgvec_toolkit.ingest.chunk.chunking import CHUNKERS, POLICIES, Chunker, Chunking
from pgvec_toolkit.ingest.chunk.cutter import Cutter, lacks_grammar

__all__ = ["CHUNKERS", "POLICIES", "Chunker", "Chunking", "Cutter", "lacks_grammar"]
