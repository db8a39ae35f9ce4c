"""Settings of the documentation, which ``python -m sphinx -W docs docs/_build`` builds."""

import os
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import mmvae_jax

project = "mmvae_jax"
author = "The mmvae_jax authors"
project_copyright = "the mmvae_jax authors, Apache-2.0"
release = version = mmvae_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

# Pages
html_theme = "furo"
html_title = "mmvae_jax"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sphinx = False
toc_object_entries_show_parents = "hide"
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3  # for links such as training.md#checkpoints
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Tutorials run when the pages are built, and again only when their code has changed.
nb_execution_mode = os.environ.get("MMVAE_DOCS_NOTEBOOKS", "cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 900

# The API, from docstrings
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "all"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
add_module_names = False
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False

CLASSES = "|".join(name for name in mmvae_jax.__all__ if name[0].isupper())
#: Patterns of types as autodoc writes them, and what the pages print; applied in this order.
TYPES = {
    r"~?\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z])": "",  # module paths
    r"Key\[Array, ''\]( \| UInt32\[Array, '\d'\])+": "PRNGKeyArray",
    r"Array \| ndarray \| bool \| number \| bool \| int \| float \| complex": "ArrayLike",
    r"str \| type\[Any\] \| dtype \| SupportsDType": "DTypeLike",
    rf"\b({CLASSES})\b": r"~mmvae_jax.\1",  # a link
}


def shorten_types(app: Sphinx, *_: Any) -> None:
    """Shortens the types that autodoc is about to print beside parameters."""
    for parameters in app.env.current_document.autodoc_annotations.values():
        for name, annotation in parameters.items():
            for pattern, replacement in TYPES.items():
                annotation = re.sub(pattern, replacement, annotation)
            parameters[name] = annotation


def type_attributes(app: Sphinx, domain: str, kind: str, content: nodes.Element) -> None:
    """Prints types of parameters beside the attributes of a class that documents attributes."""
    fields = next(iter(content.findall(nodes.field_list)), None)
    name = content.parent[0].get("fullname") if kind == "class" else None
    types = app.env.current_document.autodoc_annotations
    found = [own for own in types if name and own.endswith(f".{name}")]
    if fields is None or not found or "ivar" not in fields.astext():
        return
    for parameter, annotation in types.pop(found[0]).items():
        body = nodes.field_body("", nodes.paragraph("", annotation))
        fields += nodes.field("", nodes.field_name("", f"vartype {parameter}"), body)


def is_tuple_field(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> bool | None:
    """True, for skip, if a member is the field of a NamedTuple: its class describes it."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def rename_attributes(app: Sphinx, page: nodes.document) -> None:
    """Heads lists of attributes with the word that the docstrings use."""
    for name in page.findall(nodes.field_name):
        if name.astext() == "Variables":
            name.children = [nodes.Text("Attributes")]


def setup(app: Sphinx) -> None:
    """Connects the functions above."""
    app.connect("object-description-transform", shorten_types, priority=100)
    app.connect("object-description-transform", type_attributes, priority=200)
    app.connect("doctree-read", rename_attributes)
    app.connect("autodoc-skip-member", is_tuple_field)
