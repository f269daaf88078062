"""Health, recall and drift over time."""
