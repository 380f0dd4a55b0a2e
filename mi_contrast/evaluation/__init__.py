"""Evaluates a backbone from its run directory or export: extracts features, fits a task and writes the result."""
