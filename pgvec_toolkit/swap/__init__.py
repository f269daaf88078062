"""Another model for a collection, while searches and writes go on."""
