"""Judges a backbone, given only its run directory or export: features, tasks, results."""
