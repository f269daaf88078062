"""The PostgreSQL that comes in a wheel: set up, started and found again without anybody's doing."""

from pgvec_toolkit.embedded.server import EmbeddedServer, ServerStatus, default_home

__all__ = ["EmbeddedServer", "ServerStatus", "default_home"]
