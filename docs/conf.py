"""Sphinx's settings for the site that `make docs` builds."""

from typing import Any, List

from baryon import __version__

# The pages in the order of the site's menu. They are added to index.md here, not in the file, where
# other readers of Markdown would show them as code.
MENU = {
    "Run": "run hosts copying failures",
    "Clusters": "clusters ssh slurm sge mpi kubernetes yarn",
    "Scripts": "stores data collectives checkpoints compression",
    "Look up": "reference native api compatibility",
    "Inside": "architecture performance",
    "Protocol": "protocol protocol-data protocol-control protocol-plan protocol-life",
}

project = "Baryon"
author = "the Baryon authors"
copyright = author
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"Baryon {release}"
html_copy_source = False
html_show_sourcelink = False
master_doc = "index"

myst_heading_anchors = 3
highlight_language = "text"  # blocks are commands and files unless they say otherwise
default_role = "code"  # docstrings have `names` in single quotes

autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
add_module_names = False
toc_object_entries_show_parents = "hide"


def add_menu(app: Any, docname: str, source: List[str]) -> None:
    if docname == master_doc:
        for caption, pages in MENU.items():
            names = "\n".join(pages.split())
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def setup(app: Any) -> None:
    app.connect("source-read", add_menu)
