"""The operations of a forward pass, and which pixels their outputs depend on."""

from course_utils.analysis.operations.recorder import WINDOWED, Operation, check_network, trace

__all__ = ["WINDOWED", "Operation", "check_network", "trace"]
