"""Ground truth, recall, and the search for the cheapest setting that reaches a target."""
