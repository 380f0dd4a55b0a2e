"""Settings of the documentation, which `just docs` builds into docs/_build/html from stored outputs."""

import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.links import PYPROJECT, REPOSITORY

project, author = "mi_contrast", PYPROJECT["authors"][0]["name"]
version = release = PYPROJECT["version"]
copyright = f"{datetime.now().year}, {author}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "docs.docstrings",
    "docs.generate",
]
exclude_patterns = ["_build", "README.md"]
suppress_warnings = ["config.cache"]

# Pages
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are shown with the outputs that are stored in them

# Docstrings
default_role = "literal"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
python_display_short_literal_types = True

# Looks
html_theme = "sphinx_book_theme"
html_title = "mi_contrast"
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_theme_options = {
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "path_to_docs": "docs",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navbar_persistent": [],
}
html_context = {"default_mode": "auto"}
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
