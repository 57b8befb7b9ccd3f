"""Predictions against plain PyTorch."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from course_utils.analysis import predictions
from course_utils.analysis.predictions import Predictions, confusion_matrix, per_class_accuracy

predict = partial(predictions.predict, precision="fp32")


# Right, wrong at 0.5, wrong at 0.75, right, wrong at 0.5 again, wrong at 1; no image of class 3.
EXAMPLE = Predictions(
    labels=torch.tensor([0, 0, 1, 1, 2, 2]),
    probabilities=torch.tensor(
        [[0.5, 0.25, 0.25, 0], [0, 0.5, 0.5, 0], [0.75, 0.25, 0, 0], [0, 1, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0, 0, 1]]
    ),
)


def small_net(training: bool = True) -> nn.Sequential:
    """Convolution, batch norm with statistics of its own, dropout, classifier: for 3×8×8 images."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10)]
    model = nn.Sequential(*layers)
    model(torch.randn(8, 3, 8, 8) * 3 + 1)
    return model.train(training)


@pytest.fixture
def batches(generator) -> list[tuple[Tensor, Tensor]]:
    images = torch.randn(11, 3, 8, 8, generator=generator)
    return list(zip(images.split(4), (torch.arange(11) % 10).split(4), strict=True))


def test_predict(batches):
    model = small_net()
    predictions = predict(model, batches)
    logits = copy.deepcopy(model).eval()(torch.cat([images for images, _ in batches]))
    assert torch.equal(predictions.labels, torch.arange(11) % 10)
    torch.testing.assert_close(predictions.probabilities, logits.softmax(1))
    torch.testing.assert_close(predictions.probabilities.sum(1), torch.ones(11))
    predictions.probabilities.mul_(2)  # ordinary tensors, free to be changed
    assert not predictions.probabilities.requires_grad
    with pytest.raises(ValueError, match="no batches to predict"):
        predict(model, [])


def test_predictions_example():
    assert EXAMPLE.predicted.tolist() == [0, 1, 0, 1, 1, 3]
    assert EXAMPLE.confidence.tolist() == [0.5, 0.5, 0.75, 1, 0.5, 1]
    assert EXAMPLE.accuracy == 2 / 6
    assert EXAMPLE.misclassified.tolist() == [5, 2, 1, 4]  # as confident: in the order of the images
    many = Predictions(EXAMPLE.labels.repeat(99), EXAMPLE.probabilities.repeat(99, 1))  # short lists sort stably anyway
    assert many.misclassified.tolist() == [i + 6 * n for group in ([5], [2], [1, 4]) for n in range(99) for i in group]


def test_confusion_matrix(generator):
    labels, probabilities = torch.randint(0, 5, (200,), generator=generator), torch.rand(200, 6, generator=generator)
    expected = [[0] * 6 for _ in range(6)]
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        expected[label][row.index(max(row))] += 1
    matrix = confusion_matrix(Predictions(labels, probabilities))
    assert matrix.dtype is torch.int64 and matrix.tolist() == expected


def test_per_class_accuracy():
    accuracy = per_class_accuracy(EXAMPLE)
    torch.testing.assert_close(accuracy, torch.tensor([0.5, 0.5, 0, torch.nan], dtype=torch.float64), equal_nan=True)
