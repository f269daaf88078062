"""Tables, columns and indexes: what they look like, what they cost, how they are built."""
