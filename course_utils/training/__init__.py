"""A recipe in, a history out."""

from course_utils.training.history import History, Metrics
from course_utils.training.loop import evaluate, fit, minutes_to_train, train_epoch
from course_utils.training.recipe import Recipe

__all__ = ["History", "Metrics", "Recipe", "evaluate", "fit", "minutes_to_train", "train_epoch"]
