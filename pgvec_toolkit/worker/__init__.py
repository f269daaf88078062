"""Keeping collections true to the tables that they follow: what triggers queued is read, cut, embedded and written."""
