"""Data sets, their pairing, and readers that return the batch of any step."""
