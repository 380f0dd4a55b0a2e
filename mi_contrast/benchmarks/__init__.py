"""What `mi_contrast.bench` times: one file a case, each with a `run(repeats, small)`."""
