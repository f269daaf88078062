"""Reranking: hits of a search put in the order that a slower, better judge gives them."""
