"""The recipe refuses what cannot work; the record survives the way to a file and back."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from course_utils.device import PRECISIONS
from course_utils.training import History, Metrics, Recipe
from course_utils.training.recipe import SCHEDULES


def make_history(validation: bool = True) -> History:
    # Thirds have no short decimal form: only a text with every digit brings them back.
    figures = (2 / 3, 1 / 3) + ((4 / 3, 0.25) if validation else (None, None))
    epochs = [Metrics(1, *figures, lr=0.1 / 3, seconds=1.5), Metrics(2, *figures, lr=1e-9, seconds=2.5)]
    return History(Recipe(epochs=2, schedule="step", label_smoothing=0.1), epochs, {"device": "cpu", "torch": "2"})


@pytest.mark.parametrize("validation", [True, False])
def test_json_round_trip(validation):
    history = make_history(validation)
    back = History.from_dict(json.loads(json.dumps(history.to_dict())))
    assert back == history and back.environment == history.environment
    assert [m.seconds for m in back.metrics] == [1.5, 2.5]


def test_only_results_count_for_equality():
    history = make_history()
    slower = [replace(metrics, seconds=99.0) for metrics in history.metrics]
    assert replace(history, metrics=slower, environment={"device": "another"}) == history
    assert replace(history, recipe=Recipe(epochs=2)) != history
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
        other = replace(history.metrics[0], **{name: math.nextafter(getattr(history.metrics[0], name), 9)})
        assert replace(history, metrics=[other, history.metrics[1]]) != history


@pytest.mark.parametrize("validation", [True, False])
def test_frame_has_one_row_per_epoch_and_part(validation):
    expected = []
    for epoch, lr, seconds in ((1, 0.1 / 3, 1.5), (2, 1e-9, 2.5)):
        expected.append(dict(epoch=epoch, part="train", loss=2 / 3, accuracy=1 / 3, lr=lr, seconds=seconds))
        if validation:
            expected.append(dict(epoch=epoch, part="validation", loss=4 / 3, accuracy=0.25, lr=lr, seconds=seconds))
    assert make_history(validation).frame().to_dict("records") == expected


BAD_RECIPES = [
    (dict(schedule="cosine"), ["schedule 'cosine'", *SCHEDULES]),
    (dict(precision="fp8"), ["precision 'fp8'", *PRECISIONS]),
    *(({name: 0}, [f"{name} is 0", "at least 1"]) for name in ("epochs", "step_size", "small_size")),
    *((dict(lr=lr), [f"lr is {lr}", "above 0"]) for lr in (0.0, -0.1, math.nan, math.inf)),
    *(({name: -1}, [f"{name} is -1", "at least 0"]) for name in ("weight_decay", "gamma", "muon_weight_decay")),
    *((dict(epochs=3, small_epochs=n), [f"small_epochs is {n}", "from 0 to 3, the number of epochs"]) for n in (-1, 4)),
    (dict(muon_lr=0.0), ["muon_lr is 0.0", "above 0"]),
    (dict(optimizer="adam"), ["optimizer 'adam'", "sgd, muon"]),
    *(
        ({name: value}, [f"{name} is {value}", "from 0 to below 1"])
        for name in ("momentum", "warmup", "label_smoothing")
        for value in (-0.1, 1, math.nan)
    ),
    *(
        ({name: 2.5}, [f"{name} is 2.5, expected a whole number"])
        for name in ("epochs", "step_size", "small_epochs", "small_size")
    ),
    *(({name: "2"}, [f"{name} is '2', expected a "]) for name in ("epochs", "lr", "momentum", "gamma", "muon_lr")),
    *(({name: True}, [f"{name} is True, expected a "]) for name in ("epochs", "lr", "warmup", "weight_decay")),
    *(({name: None}, [f"{name} is None, expected a "]) for name in ("epochs", "lr", "label_smoothing")),
    (dict(nesterov="no"), ["nesterov is 'no', expected True or False"]),
    (dict(nesterov=1), ["nesterov is 1, expected True or False"]),
    (dict(schedule=None), ["schedule None", *SCHEDULES]),
    (dict(optimizer=["sgd"]), ["optimizer ['sgd']", "sgd, muon"]),
]


def test_numbers_of_numpy_and_torch_are_numbers():
    given = dict(epochs=np.int64(2), lr=np.float32(0.5), gamma=np.float64(0.25), warmup=torch.tensor(0.5))
    recipe = Recipe(**given, step_size=np.array(3), nesterov=np.bool_(False), weight_decay=0)
    assert recipe == Recipe(epochs=2, lr=0.5, gamma=0.25, warmup=0.5, step_size=3, nesterov=False, weight_decay=0)
    assert json.loads(json.dumps(vars(recipe))) == vars(recipe)
    torch.load(_saved(vars(recipe)), weights_only=True)
    assert type(Recipe(lr=1).lr) is int  # as it was given: names of jobs are made from it


def _saved(content) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("options, words", BAD_RECIPES)
def test_bad_recipe(options, words):
    with pytest.raises(ValueError) as caught:
        Recipe(**options)
    assert [word for word in words if word not in str(caught.value)] == []


BAD_CONTENTS = [
    ({}, "no history.*recipe"),
    ({"metrics": []}, "no history.*recipe"),
    ({"recipe": {}}, "no history.*metrics"),
    ({"metrics": 3, "recipe": {}}, "no history"),
    ([], "no history"),
    ({"metrics": [{"epoch": 1}], "recipe": {}}, "no history.*train_loss"),
    ({"metrics": [], "recipe": {}, "speed": 1}, "no history.*speed"),
    ({"metrics": [], "recipe": {"speed": 1}}, "no history.*speed"),
    ({"metrics": [], "recipe": {"schedule": "cosine"}}, "'cosine'.*one-cycle, step, constant"),
    ({"metrics": [], "recipe": {"epochs": 0}}, "epochs is 0"),
]


@pytest.mark.parametrize("content, message", BAD_CONTENTS)
def test_broken_content(content, message):
    with pytest.raises(ValueError, match=message):
        History.from_dict(content)
