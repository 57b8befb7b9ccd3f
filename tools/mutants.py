"""Automatic mutants of `course_utils`: a sample from each module, and whether the tests of that module notice them.

A mutant is a copy of the course with one small change that Cosmic Ray has made: a comparison turned round, a number one
larger, a decorator gone. `make slow-mutants` runs it, keeps what it found in mutants/found.json and writes the table in
mutants/README.md. A mutant that survives needs a new test, or a reason in mutants/survivors.yaml why it changes nothing
that matters. With names of modules, `python tools/mutants.py data.augment`, only theirs are made and found anew; with
`--survivors`, only those that have survived, for which there are new tests now.
"""

import argparse
import ast
import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from copies import copy_of_the_course
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec
from sources import ROOT

FOLDER = ROOT / "tests" / "slow" / "mutants"
PER_MODULE, SEED, SECONDS = 5, 0, 300


def tests_of(module: str, course: Path) -> list[str]:
    """The tests of a module: those of its room; for one without a room those of its name, and of what stands on it."""
    room, _, _ = module.partition(".")
    if (course / "tests" / room).is_dir():
        return [f"tests/{room}"]
    return [f"tests/test_{module}.py", "tests/training"]


def type_hints(source: str) -> list[ast.expr]:
    """A change in one of them changes nothing that runs."""
    nodes = ast.walk(ast.parse(source))
    hints = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    return [hint for hint in hints if hint is not None]


def sample(module: Path) -> list[MutationSpec]:
    """`PER_MODULE` mutations at different places, drawn at random, but always the same ones."""
    tree, places = get_ast_from_path(module), {}
    hints = type_hints(module.read_text(encoding="utf-8"))
    spans = [((hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)) for hint in hints]
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue
        found = (place for node in ast_nodes(tree) for place in operator().mutation_positions(node))
        for occurrence, (start, end) in enumerate(found):
            if not any(first <= start < last for first, last in spans):
                places.setdefault(start, []).append(MutationSpec(module, name, occurrence, start, end))
    rng = random.Random(f"{module.as_posix()} {SEED}")
    chosen = rng.sample(sorted(places), min(PER_MODULE, len(places)))
    return [rng.choice(places[place]) for place in chosen]


def look_at(module: str, places: list[int]) -> list[dict]:
    """The mutants at these places of a module's sample: where, what was changed, and whether it survived.

    The course is the one in the current folder.
    """
    command = f"{sys.executable} -m pytest -x {' '.join(tests_of(module, Path.cwd()))}"
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)  # without a mutant all pass
    rows = []
    mutations = sample(Path("course_utils", *module.split(".")).with_suffix(".py"))
    for mutation in [mutations[place] for place in places if place < len(mutations)]:
        result = mutate_and_test([mutation], command, SECONDS)
        lines = [
            line for line in (result.diff or "").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
        ]
        old, new = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
        rows.append(
            {"module": module, "line": mutation.start_pos[0], "old": old, "new": new, "killed": result.is_killed}
        )
    return rows


def table(rows: list[dict], reasons: dict[tuple[str, str], str]) -> str:
    modules = sorted({row["module"] for row in rows})
    lines = ["| module | mutants | killed |", "| --- | --- | --- |"]
    for module in modules:
        of_it = [row["killed"] for row in rows if row["module"] == module]
        lines.append(f"| {module} | {len(of_it)} | {sum(of_it)} |")
    killed = sum(row["killed"] for row in rows)
    lines += [f"| all | {len(rows)} | {killed} ({killed / len(rows):.0%}) |", "", "Survivors:", ""]
    lines += ["| module | instead of | stood | why it does not matter |", "| --- | --- | --- | --- |"]
    for row in rows:
        if not row["killed"]:
            why = reasons.get((row["old"], row["new"]), "NOT KNOWN")
            lines.append(f"| {row['module']} | `{row['old']}` | `{row['new']}` | {why} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="default: all of course_utils")
    parser.add_argument("--survivors", action="store_true", help="only those that have survived")
    parser.add_argument("--here", type=int, nargs="+", help="mutate the course in the current folder; print JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(look_at(options.modules[0], options.here)))
        return 0
    found, readme, reasons = (FOLDER / name for name in ("found.json", "README.md", "survivors.yaml"))
    known: dict[str, list[dict]] = {}
    for row in json.loads(found.read_text(encoding="utf-8")):
        known.setdefault(row["module"], []).append(row)

    def in_a_copy(module: str) -> list[dict]:
        rows = known.get(module, [])
        places = [place for place, row in enumerate(rows) if not row["killed"]] if options.survivors else None
        if places == []:
            return rows
        with tempfile.TemporaryDirectory() as folder:
            course = copy_of_the_course(Path(folder))
            environment = {**os.environ, "PYTHONPATH": str(course), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, module, "--here", *map(str, places or range(PER_MODULE))]
            done = subprocess.run(command, cwd=course, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        made = json.loads(done.stdout)
        for row in made:
            outcome = "killed  " if row["killed"] else "SURVIVED"
            print(f"{outcome} {module}, line {row['line']}: {row['old']}  ->  {row['new']}", flush=True)
        if places is None:
            return made
        for place, row in zip(places, made, strict=True):
            if (row["old"], row["new"]) != (rows[place]["old"], rows[place]["new"]):
                sys.exit(f"{module} has changed since, and so have its mutants: python tools/mutants.py {module}")
            rows[place] = row
        return rows

    files = [path.relative_to(ROOT / "course_utils") for path in (ROOT / "course_utils").rglob("*.py")]
    all_modules = sorted(".".join(file.with_suffix("").parts) for file in files if not file.stem.startswith("__"))
    with ThreadPoolExecutor(max_workers=2) as pool:
        rows = [row for found in pool.map(in_a_copy, options.modules or all_modules) for row in found]
    if options.modules:
        kept = [row for module, old in known.items() if module not in options.modules for row in old]
        rows = sorted(kept + rows, key=lambda row: row["module"])
    found.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
    reasons = yaml.safe_load(reasons.read_text(encoding="utf-8"))
    text = table(rows, {(entry["old"], entry["new"]): entry["why"] for entry in reasons})
    head, _, _ = readme.read_text(encoding="utf-8").partition("| module |")
    readme.write_text(head + text, encoding="utf-8")
    print(text)
    return "NOT KNOWN" in text


if __name__ == "__main__":
    sys.exit(main())
