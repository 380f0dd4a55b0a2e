"""Judging a backbone from a run directory or an export alone: features, tasks, results."""
