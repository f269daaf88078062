"""The demo: an invented company's operations handbook, searched."""
