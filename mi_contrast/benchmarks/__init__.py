"""The cases of `mi_contrast.bench`: one file each, with a function `run(repeats, small)`."""
