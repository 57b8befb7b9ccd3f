"""A plugin for the pytest that runs nbval, which keeps no outputs: writes a notebook's record beside the notebook."""

import json

from course_utils.runs.lesson import MIME


def pytest_runtest_teardown(item):
    for output in item.test_outputs or []:
        if record := output.get("data", {}).get(MIME):
            item.path.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
