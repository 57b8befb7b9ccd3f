"""What a network predicts: probabilities, confusion matrix, accuracy per class."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_utils.device import Placement, evaluation_mode
from course_utils.training.batches import placed, refuse_augmented, refuse_other_classes


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of N images, on the CPU: `labels`, int64 N, the truth; `probabilities`, float32 N×C."""

    labels: Tensor
    probabilities: Tensor

    @property
    def predicted(self) -> Tensor:
        """The most probable class, int64 N."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> Tensor:
        """The probability of the predicted class, float32 N."""
        return self.probabilities.amax(1)

    @property
    def accuracy(self) -> float:
        """The share of images whose predicted class is the true one."""
        return (self.predicted == self.labels).double().mean().item()

    @property
    def misclassified(self) -> Tensor:
        """The indices of the wrongly classified images, the most confident first; int64."""
        wrong = (self.predicted != self.labels).nonzero().flatten()
        return wrong[self.confidence[wrong].argsort(descending=True, stable=True)]


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "auto") -> Predictions:
    """Run `model` in evaluation mode over all batches, in their order.

    Raises `ValueError` for a `BatchLoader` that augments, for no batches at all, and for batches, labels and outputs
    that are not as they should be.
    """
    refuse_augmented(batches)
    labels, probabilities = [], []
    placement, num_classes = Placement.of(model, precision), getattr(batches, "num_classes", None)
    with evaluation_mode(model):
        for images, batch_labels in placed(batches, placement):
            probabilities.append(placement.logits(model, images, num_classes).softmax(1).float())
            labels.append(batch_labels)
    if not labels:
        raise ValueError("there are no batches to predict")
    predictions = Predictions(torch.cat(labels).cpu(), torch.cat(probabilities).cpu())
    refuse_other_classes(predictions.labels, predictions.probabilities.shape[1])
    return predictions


def confusion_matrix(predictions: Predictions) -> Tensor:
    """How often class `row` was taken for class `column`: int64 C×C."""
    classes = predictions.probabilities.shape[1]
    cells = predictions.labels * classes + predictions.predicted
    return torch.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class_accuracy(predictions: Predictions) -> Tensor:
    """The share of each class that was recognized: float64 C; NaN for a class without images."""
    matrix = confusion_matrix(predictions)
    return matrix.diagonal().double() / matrix.sum(1)
