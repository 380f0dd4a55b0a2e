"""Studies: plan many runs, then train and judge each of them in a process of its own."""
