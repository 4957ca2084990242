"""Sphinx configuration: Markdown pages, an API reference from docstrings, tables from the code."""

import regrow
from regrow.training.options import option_fields

project = "regrow"
author = "The regrow developers"
project_copyright = author
release = regrow.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist", "substitution"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "exclude-members": "extra_repr"}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Shape", ("Differs from the paper", "notes_style")]

html_theme = "furo"
html_title = "regrow"
html_show_sourcelink = False


def options_table() -> str:
    """The options of `regrow train` as a Markdown table."""
    rows = ["| option | default | what it is |", "|---|---|---|"]
    for name, option in option_fields().items():
        flag = "DATA" if name == "data" else "--" + name.replace("_", "-")
        default = option.default
        if isinstance(default, tuple):
            default = " ".join(map(str, default))
        shown = "" if default in (None, "") else f"`{default}`"
        rows.append(f"| `{flag}` | {shown} | {option.metadata['help']} |")
    return "\n".join(rows)


myst_substitutions = {"options": options_table()}
