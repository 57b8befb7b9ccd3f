"""How Sphinx builds the site. `tools/website.py` puts the sources together, beside this file, and calls it."""

from docutils import nodes
from latex2mathml.converter import convert
from setup_cell import ADDRESS, PROJECT, is_known, revision

project, author, release = "Small networks on small images", "The course team", PROJECT["version"]
copyright = f"{author}. MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton"]

exclude_patterns = ["downloads", "made"]
nb_execution_mode = "off"  # the committed outputs are shown
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-python div.highlight pre, div.highlight-bash pre"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
default_role = "code"  # a docstring's single backticks

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_favicon = "_static/icon.svg"
templates_path = ["_templates"]
html_context = {"default_mode": "auto"}
html_copy_source = html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "use_download_button": False,  # an edition is downloaded from below the title
    "navbar_persistent": [],  # one field to search in, in the sidebar
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "search_bar_text": "Search the course",
}
if is_known(ADDRESS):
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": revision(),
        "use_repository_button": True,
        "use_issues_button": True,
    }


def visit_math(self, node):
    """Formulas are MathML, which browsers draw by themselves: no script, and nothing to fetch."""
    if isinstance(node, nodes.math_block):  # wider than a phone: it scrolls, by the keyboard too
        self.body.append(f'<div class="formula" tabindex="0">{convert(node.astext(), display="block")}</div>')
    else:
        self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def number_alternative_texts(app, doctree):
    """Images with one description between them, because one cell made them, are told apart by a number."""
    alike: dict[str, list[nodes.image]] = {}
    for image in doctree.findall(nodes.image):
        alike.setdefault(image.get("alt", ""), []).append(image)
    for text, images in alike.items():
        for number, image in enumerate(images, start=1):
            if not text:
                raise ValueError(f"{app.env.docname}: the image {image['uri']} has no alternative text")
            if len(images) > 1:
                image["alt"] = f"{text} ({number} of {len(images)})"


def defer_scripts(app, pagename, templatename, context, doctree):
    """The text is shown before scripts are loaded; they keep their order. The page that searches needs them at once."""
    for script in context["script_files"]:  # the same objects for every page
        name = str(getattr(script, "filename", None) or "documentation_options.js")
        if pagename == "search":
            script.attributes.pop("defer", None)
        elif "documentation_options.js" not in name:  # what stands between the tags needs it
            script.attributes["defer"] = "defer"


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("doctree-read", number_alternative_texts)
    app.connect("html-page-context", defer_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
