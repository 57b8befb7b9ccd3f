"""A measure for runs: the bands that their test accuracies should be in."""

import pytest

from course_utils.runs.bands import compare_with_band
from course_utils.runs.run import Job, Run
from course_utils.training import History, Metrics, Recipe

BANDS = """
- run: {network: [A, B], norm: [batch, layer], data: noise, epochs: 20, batch_size: 128, train_images: [45000, 50000]}
  band: [0.79, 0.815]
  why: ten runs gave that
- run: {network: A, norm: batch, data: noise, epochs: 5, batch_size: 128, train_images: 50000}
  band: [0.60, 0.65]
  why: shorter
"""
RUN = dict(network="A", norm="batch", data="noise", epochs=20, batch_size=128, train_images=50000)
NO_BAND = "A with batch norm: test accuracy 80.0 %; no band for this run, but "
VERDICTS = [
    (80.0, {}, "A with batch norm: test accuracy 80.0 % is inside the band of 79 to 81.5 % (ten runs gave that)"),
    (79.0, {}, "A with batch norm: test accuracy 79.0 % is inside the band of 79 to 81.5 % (ten runs gave that)"),
    (81.5, {}, "A with batch norm: test accuracy 81.5 % is inside the band of 79 to 81.5 % (ten runs gave that)"),
    (78.9, {}, "A with batch norm: test accuracy 78.9 % is below the band of 79 to 81.5 % (ten runs gave that)"),
    (90.0, {}, "A with batch norm: test accuracy 90.0 % is above the band of 79 to 81.5 % (ten runs gave that)"),
    (
        80.0,
        dict(network="B", norm="layer", train_images=45000),
        "B with layer norm: test accuracy 80.0 % is inside the band of 79 to 81.5 % (ten runs gave that)",
    ),
    (64.0, dict(epochs=5), "A with batch norm: test accuracy 64.0 % is inside the band of 60 to 65 % (shorter)"),
    (80.0, dict(data="shapes"), f"{NO_BAND}79 to 81.5 % for data noise (here shapes)"),
    (80.0, dict(epochs=7), f"{NO_BAND}79 to 81.5 % for epochs 20 (here 7)"),
    (80.0, dict(epochs=5, data="shapes"), f"{NO_BAND}60 to 65 % for data noise (here shapes)"),
    (
        80.0,
        dict(batch_size=64, train_images=100),
        f"{NO_BAND}79 to 81.5 % for batch_size 128 (here 64), train_images [45000, 50000] (here 100)",
    ),
    (80.0, dict(network="C"), "C with batch norm: test accuracy 80.0 %; no band is known for this network"),
    (80.0, dict(norm="none"), "A with none norm: test accuracy 80.0 %; no band is known for this network"),
]


@pytest.mark.parametrize("accuracy, other, sentence", VERDICTS, ids=str)
def test_verdict_on_a_run(tmp_path, accuracy, other, sentence):
    (tmp_path / "bands.yaml").write_text(BANDS)
    facts = RUN | other
    recipe = Recipe(epochs=facts["epochs"])
    history = History(recipe, [Metrics(n, 1.0, 0.5, None, None, 0.1, seconds=1.0) for n in range(facts["epochs"])])
    job = Job(facts["network"], facts["norm"], batch_size=facts["batch_size"], recipe=recipe)
    run = Run(job, facts["data"], facts["train_images"], 10, history, test_accuracy=accuracy / 100)
    verdict = compare_with_band(run, folder=tmp_path)
    assert str(verdict) == sentence
    assert f" {verdict.place} " in sentence


def test_run_without_a_test_accuracy(tmp_path):
    run = Run(Job("A"), "noise", 24, 10, History(Recipe()))
    with pytest.raises(ValueError, match="has no test accuracy, expected a run that was evaluated on the test images"):
        compare_with_band(run, folder=tmp_path)
