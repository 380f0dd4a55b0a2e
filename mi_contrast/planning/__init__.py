"""Plans a run before it starts: what its step needs, on devices that are here or that are only described."""
