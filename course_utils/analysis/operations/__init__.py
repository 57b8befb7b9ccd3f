"""The operations of a forward pass, and which pixels their outputs depend on."""

from course_utils.analysis.operations.recorder import WINDOWED, Operation, trace

__all__ = ["WINDOWED", "Operation", "trace"]
