"""Studies: many runs settled, run and judged, each in a process of its own."""
