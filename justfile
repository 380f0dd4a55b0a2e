# The words of everyday work; `just` lists them. Each is one command, which works without just as well.

_list:
    @just --list

# Run all tests but the nightly ones
test *arguments:
    python -m pytest -n auto --dist loadfile -m "not nightly" {{ arguments }}

# Run the quick tests, of everything or of the files named
quick *files:
    python -m pytest -n auto --dist loadfile -m "not slow" {{ files }}

# Check style and types, as the continuous build does
lint:
    ruff check .
    ruff format --check .
    mypy

# Time a case beside its peer, such as ring_loss, or all of them
bench case="all" *flags:
    python -m mi_contrast.bench --case={{ case }} {{ flags }}

# Build the documentation into docs/_build/html; a warning is an error
docs *flags:
    python -m sphinx -W --keep-going -b html {{ flags }} docs docs/_build/html
