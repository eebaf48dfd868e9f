"""The inference engine: the only room, with training, that imports torch."""
