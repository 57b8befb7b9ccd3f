"""The picture of every combination is the figure that was drawn for it, and the text says which it is."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import product

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from course_utils.analysis.sliders import choose

matplotlib.use("Agg")
CHOICES = {"kernel_size": [1, 3], "norm": ("batch", "</script><b>"), "rate": [0.1, 0.2, 0.5]}
COMBINATIONS = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]
CAPTIONS = [
    [f"kernel size = {each['kernel_size']}", f"norm = {each['norm']}", f"rate = {each['rate']}"]
    for each in COMBINATIONS
]


def draw(**values) -> Figure:
    """Bars whose heights tell the values, in a figure that is left open."""
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.bar(range(len(values)), [CHOICES[name].index(value) + 1 for name, value in values.items()])
    ax.set(ylim=(0, 4))
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """What is saved directly; `draw` uses fewer than 256 colours, so that no frame loses one."""
    file = io.BytesIO()
    figure.savefig(file, dpi=80)
    plt.close(figure)
    return np.asarray(Image.open(file).convert("RGB"))


def decoded(address: str) -> np.ndarray:
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))


class Parts(HTMLParser):
    """The elements with their attributes, and the text of the script."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.scripts = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.scripts.append(data)

    def given(self) -> list:
        """What the script is called with: alt, sizes, controls, captions, and all frames but the first."""
        (script,) = self.scripts
        return json.loads(re.search(r'\}\)\("choose-\w+", \.\.\.(\[.*\])\);$', script)[1])


@pytest.fixture(scope="module")
def html() -> str:
    return choose(draw, 'Bars & "more"', **CHOICES)._repr_html_()


def test_every_frame_is_the_figure_of_its_caption(html):
    parts = Parts(html)
    _, sizes, _, captions, others = parts.given()
    (image,) = (attrs for tag, attrs in parts.elements if tag == "img")
    frames = [image["src"], *others]
    assert sizes == [2, 2, 3] and captions == CAPTIONS and len(set(frames)) == len(frames) == 12
    for frame, values in zip(frames, COMBINATIONS, strict=True):
        assert np.array_equal(decoded(frame), pixels(draw(**values))), values
    assert plt.get_fignums() == []


def test_without_the_script_there_is_one_described_picture_and_no_control(html):
    box, image, script = Parts(html).elements
    assert [box[0], image[0], script[0]] == ["div", "img", "script"]
    assert image[1]["alt"] == f'Bars & "more" ({", ".join(CAPTIONS[0])})'
    assert "background: #fff" in box[1]["style"] and re.fullmatch(r"choose-\w{12}", box[1]["class"])
    assert html.count("</script>") == 1 and not re.search(r"https?:", html)


def test_numbers_get_a_slider_and_other_values_a_list(html):
    controls = Parts(Parts(html).given()[2])
    assert [tag for tag, _ in controls.elements] == [
        *("label", "input", "label", "select", "option", "option", "label", "input", "output")
    ]
    assert [attrs["max"] for tag, attrs in controls.elements if tag == "input"] == ["1", "2"]
    assert "".join(controls.scripts) == "kernel size norm batch</script><b>rate "
    flags = Parts(choose(lambda **_: Figure((1, 1)), "Nothing", bias=[False, True]).html).given()[2]
    assert "<select " in flags


# A page with two boxes, as far as the script asks it; prints what is shown for each setting of the controls.
PAGE = """
const settings = SETTINGS, lines = [];
const box = () => {
  const made = {inputs: [], output: {}, image: {src: "first", insertAdjacentHTML: (_, html) => {
    made.inputs.push(...html.match(/<(input|select) /g).map(tag => ({
      value: "0", type: tag === "<input " ? "range" : "select-one", said: null,
      setAttribute(name, text) { this.said = text; } })));
  }}};
  made.querySelector = name => name === "img" ? made.image : made.output;
  made.querySelectorAll = () => made.inputs;
  return made;
};
const boxes = [box(), box()];
const bare = name => each => !(name.endsWith(":not(:has(output))") && each.inputs.length);
globalThis.document = {querySelectorAll: name => boxes.filter(bare(name))};
SCRIPT
SCRIPT
for (const setting of settings) {
  boxes[1].inputs.forEach((each, i) => { each.value = String(setting[i]); });
  boxes[1].oninput();
  lines.push([boxes[1].image.src, boxes[1].image.alt, boxes[1].output.value, boxes[1].inputs.map(each => each.said)]);
}
console.log(JSON.stringify([lines, boxes[0].image.src, boxes[0].output.value, boxes[1].inputs.length]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which runs the script of the page")
def test_controls_show_the_frame_and_the_text_of_their_values(html, tmp_path):
    settings = [[list(CHOICES[name]).index(each[name]) for name in CHOICES] for each in COMBINATIONS]
    page = PAGE.replace("SETTINGS", json.dumps(settings)).replace("SCRIPT", Parts(html).scripts[0])
    (tmp_path / "page.js").write_text(page, encoding="utf-8")
    done = subprocess.run(["node", tmp_path / "page.js"], capture_output=True, text=True, encoding="utf-8", check=True)
    lines, other, other_text, count = json.loads(done.stdout)
    assert (other, other_text, count) == ("first", ", ".join(CAPTIONS[0]), 3)  # each box has controls of its own, once
    assert [source for source, *_ in lines] == ["first", *Parts(html).given()[4]]
    for (_, alt, text, said), caption in zip(lines, CAPTIONS, strict=True):
        assert text == ", ".join(caption) and alt == f'Bars & "more" ({text})'
        assert said == [caption[0], None, caption[2]]


def test_the_same_figures_are_the_same_text_and_others_have_another_name(html):
    assert choose(draw, 'Bars & "more"', **CHOICES).html == html
    one, two = (choose(draw, "Bars", rate=rates).html for rates in ([0.1, 0.2], [0.1, 0.5]))
    names = {re.search(r"choose-\w{12}", text)[0] for text in (html, one, two)}
    assert len(names) == 3


def test_text_without_html():
    assert repr(choose(draw, "Bars", rate=[0.1, 0.2], norm=["batch"])) == "2 figures: rate = 0.1, 0.2; norm = batch"


def test_many_colours_become_few_and_a_figure_without_a_ground_gets_a_white_one():
    def noise(ground: str) -> Figure:
        figure = Figure((2, 2), facecolor=ground)
        image = np.random.default_rng(0).random((100, 100, 3))
        figure.add_axes((0, 0, 0.5, 1)).imshow(image, aspect="auto")
        figure.text(0.6, 0.5, "text")
        return figure

    shown = decoded(Parts(choose(noise, "Noise", ground=["none"]).html).elements[1][1]["src"]).astype(int)
    direct = pixels(noise("white"))
    assert len(np.unique(direct.reshape(-1, 3), axis=0)) > 1000 >= 256 >= len(np.unique(shown.reshape(-1, 3), axis=0))
    assert np.abs(shown - direct)[:, :80].mean() < 10 and np.abs(shown - direct)[:, 85:].mean() < 0.1


def test_choices_may_have_any_name():
    figure = choose(lambda alt, draw: Figure((1, 1)), "Nothing", alt=[1], draw=[2])
    assert repr(figure) == "1 figures: alt = 1; draw = 2"


@pytest.mark.parametrize(
    ("arguments", "choices", "message"),
    [
        ((draw, "Bars"), {}, "nothing to choose"),
        ((draw, " "), {"rate": [0.1]}, "or no text"),
        ((draw, "Bars"), {"rate": 0.1}, r"rate is 0\.1, expected a list"),
        ((draw, "Bars"), {"norm": "batch"}, "norm is 'batch', expected a list"),
        ((draw, "Bars"), {"rate": []}, r"rate is \[\], expected a list"),
        ((draw, "Bars"), {"a": range(5), "b": range(13)}, "have 65 combinations, expected at most 64"),
        ((lambda rate: plt.gca, "Bars"), {"rate": [1]}, r"draw\(rate=1\) returned function, expected a matplotlib"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, choices, message):
    with pytest.raises(ValueError, match=message):
        choose(*arguments, **choices)
