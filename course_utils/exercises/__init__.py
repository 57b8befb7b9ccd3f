"""The exercises of all sessions: `check_answer` says what is wrong with an answer, and gives a hint."""

from course_utils.arguments import one_of
from course_utils.exercises.s8 import S8_CHECKS
from course_utils.exercises.s9 import S9_CHECKS

CHECKS = S8_CHECKS | S9_CHECKS


def check_answer(exercise: str, answer) -> None:
    """Say that `answer` is right, or raise `AssertionError` that says what is wrong with it."""
    one_of(exercise, "exercise", CHECKS)
    assert answer is not ..., f"{exercise}: replace the three dots by your answer"
    try:
        CHECKS[exercise](answer)
    except AssertionError as error:
        raise AssertionError(f"{exercise}: {error}") from None
    print(f"{exercise}: right")
