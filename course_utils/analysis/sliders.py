"""A figure whose values the reader chooses, in a notebook or on a web page, without a kernel: `choose`."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import product
from math import prod
from numbers import Real
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

MOST_FRAMES, DPI, COLOURS = 64, 80, 256  # with so few colours a picture has a third of the bytes
BOX = "display: inline-block; max-width: 100%; padding: 0.5em; background: #fff; color: #000; color-scheme: light"
KEYS = 'data-lm-suppress-shortcuts="true"'  # else JupyterLab takes the arrow keys for its own
# The script makes the controls: without it there are none.
SCRIPT = """(name, alt, sizes, controls, captions, others) => {
  for (const box of document.querySelectorAll(`.${name}:not(:has(output))`)) {
    const image = box.querySelector("img"), frames = [image.src, ...others];
    image.insertAdjacentHTML("beforebegin", controls);
    const inputs = [...box.querySelectorAll("input, select")];
    (box.oninput = () => {
      const at = inputs.reduce((sum, each, i) => sum * sizes[i] + Number(each.value), 0);
      const caption = captions[at].join(", ");
      image.src = frames[at];
      image.alt = `${alt} (${caption})`;
      box.querySelector("output").value = caption;
      inputs.forEach((each, i) => each.type === "range" && each.setAttribute("aria-valuetext", captions[at][i]));
    })();
  }
}"""


@dataclass(frozen=True, repr=False)
class Choice:
    """What `choose` returns: a notebook shows the HTML, or the text where it cannot."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def choose(draw: Callable[..., Figure], alt: str, /, **choices: Sequence[Any]) -> Choice:
    """The figures `draw(name=value, ...)` for all combinations of the choices' values, and controls to choose by.

    Numbers get a slider, other values a list. The figures are drawn here, once, with 80 dots per inch and 256 colours;
    the first is shown where no script runs. `alt` describes them to readers who cannot see them. Raises `ValueError`
    for no choices, values that are not in a list, more than 64 combinations, an empty `alt`, and where `draw` returns
    no figure.
    """
    if not choices or not alt.strip():
        raise ValueError("nothing to choose or no text, expected choose(draw, 'what is shown', name=[value, ...])")
    for name, values in choices.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise ValueError(f"{name} is {values!r}, expected a list of one or more values")
    if (count := prod(map(len, choices.values()))) > MOST_FRAMES:
        raise ValueError(f"the choices have {count} combinations, expected at most {MOST_FRAMES}")
    combinations = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    captions = [[f"{_words(name)} = {value}" for name, value in each.items()] for each in combinations]
    first, *others = [_as_png(draw, each) for each in combinations]
    controls = "".join(_control(_words(name), values) for name, values in choices.items())
    controls += '<output aria-live="polite" style="display: block"></output>'
    given = [alt, [len(values) for values in choices.values()], controls, captions, others]
    data = json.dumps(given).replace("<", r"\u003c")  # no text in it can end the script
    name = "choose-" + hashlib.sha256((first + data).encode()).hexdigest()[:12]
    text = escape(f"{alt} ({', '.join(captions[0])})")
    image = f'<div class="{name}" style="{BOX}"><img src="{first}" alt="{text}" style="max-width: 100%"></div>'
    lists = "; ".join(f"{_words(name)} = {', '.join(map(str, values))}" for name, values in choices.items())
    return Choice(f'{image}<script>({SCRIPT})("{name}", ...{data});</script>', f"{count} figures: {lists}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _control(name: str, values: Sequence[Any]) -> str:
    """A slider or a list in HTML; its value is the index of the chosen one."""
    if all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        control = f'<input type="range" max="{len(values) - 1}" value="0" style="vertical-align: middle" {KEYS}>'
    else:
        options = (f'<option value="{index}">{escape(str(value))}</option>' for index, value in enumerate(values))
        control = f"<select {KEYS}>{''.join(options)}</select>"
    return f'<label style="margin-right: 1em">{name} {control}</label>'


def _as_png(draw: Callable[..., Figure], values: dict[str, Any]) -> str:
    """A figure as the address of an image that contains it."""
    figure, file, small = draw(**values), BytesIO(), BytesIO()
    if not isinstance(figure, Figure):
        given = ", ".join(f"{name}={value!r}" for name, value in values.items())
        raise ValueError(f"draw({given}) returned {type(figure).__name__}, expected a matplotlib Figure")
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
    plt.close(figure)  # if draw left it open, a notebook would show it once more
    Image.open(file).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(small.getvalue()).decode()}"
