"""The run-always SQL of schema `pgvec`: one file a topic, all CREATE OR REPLACE."""
