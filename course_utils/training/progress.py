"""What a person who waits for `fit` sees: a bar for the epoch, then a line or, in a notebook, a curve that grows."""

import builtins
import io
import sys
from collections.abc import Iterable
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from course_utils.training.history import History


def somebody_watches() -> bool:
    """True in a terminal and in a notebook that a person steps through; false under papermill, nbval and in a pipe."""
    if (kernel := _kernel()) is None:
        return sys.stdout.isatty()
    # Front ends that show a person the output also let the kernel ask that person for input; headless ones do not.
    return bool(getattr(kernel, "_allow_stdin", False))


def _kernel() -> Any:
    return getattr(getattr(builtins, "get_ipython", lambda: None)(), "kernel", None)


def accuracy_curve(history: History) -> Figure:
    """Accuracy in per cent by epoch, as far as `history` goes; above it, about how long the rest takes."""
    epochs, small = history.recipe.epochs, history.recipe.small_epochs
    figure = Figure(figsize=(6, 2.4), layout="constrained")
    axes = figure.subplots()
    shown = history.frame().assign(accuracy=lambda table: 100 * table["accuracy"])
    for part, style in (("train", "--"), ("validation", "-")):
        if len(rows := shown[shown["part"] == part]):
            label = f"{part}, {rows['accuracy'].iloc[-1]:.1f} %"
            axes.plot(rows["epoch"], rows["accuracy"], style, marker="o", markersize=3, label=label)
    full_size = history.metrics[small:]
    left = (epochs - len(history)) * mean(metrics.seconds for metrics in full_size or history.metrics)
    # An epoch of full size takes longer than the small ones; how much longer is not known before the first one.
    about = "about" if full_size else "at least"
    rest = f"{about} {_duration(left)} left" if left else f"done in {_duration(history.seconds)}"
    axes.set(title=f"epoch {len(history)} of {epochs}, {rest}", xlabel="epoch", ylabel="accuracy (%)")
    axes.set_xlim(0.5, epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Progress:
    """Shows how far a training is: nothing unless `verbose`, and lines of text alone while nobody watches."""

    def __init__(self, verbose: bool):
        self.verbose, self.watched = verbose, verbose and somebody_watches()
        self._place: Any = None  # where in the notebook the curve stands

    def batches(self, train: Iterable, epoch: int) -> Iterable:
        """`train`, with a bar while somebody watches."""
        # To standard output: what goes to standard error leaves a coloured stripe for each epoch in JupyterLab.
        return tqdm(train, desc=f"epoch {epoch}", leave=False, file=sys.stdout) if self.watched else train

    def show(self, history: History) -> None:
        """Say what the last epoch of `history` gave."""
        if self.watched and _kernel() is not None:
            self._draw(accuracy_curve(history))
        elif self.verbose:
            print(history.metrics[-1], flush=True)

    def _draw(self, figure: Figure) -> None:
        from IPython.display import Image, display  # a kernel has it, a script may not

        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=100)
        image = Image(png.getvalue(), alt=figure.axes[0].get_title())
        if self._place is None:
            self._place = display(image, display_id=True)
        else:
            self._place.update(image)
