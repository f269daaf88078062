"""The database and its collections, awaited: the methods are those of `Database` and `Collection`, run by a task."""
