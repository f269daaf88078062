"""Calling the SQL search functions and reading what they return."""
