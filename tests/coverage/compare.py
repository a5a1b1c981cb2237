#!/usr/bin/env python3
"""Prints the coverage of the rooms below, and compares what no test reaches with `uncovered.txt`.

`uncovered.txt` has blocks: a file, a reason below it, and the lines to which it applies. `| code` is a line that is
never run, `? code` a line with a condition that is always true or always false, and `~ code` a line that is one of
these in some runs, because it depends on the order of threads. An entry names the line by its code, so other edits of
the file do not matter. A line that is not listed fails, and so does an entry that a test now reaches. Lines of
punctuation alone are left out.

The store in Redis is left out: it needs a server, and is tested with one (`tests/nodes`). With `--nodes`, it is the only
one."""

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOMS = ["jose", "proof", "resource", "tokens"]
REDIS = "proof/replay/redis"
ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("uncovered.txt")


def room(path):
    """The room of a file with code, if it is one of those."""
    if not Path(path).is_relative_to(ROOT / "src"):
        return None
    parts = Path(path).relative_to(ROOT / "src").with_suffix("").parts
    if parts[0] not in ROOMS or "tests" in parts:
        return None
    return REDIS if "/".join(parts).startswith(REDIS) else parts[0]


def measured(report):
    """Per file, the number of runs of each line, and of each outcome of its conditions."""
    lines, outcomes = defaultdict(dict), defaultdict(lambda: defaultdict(list))
    file = None
    for row in Path(report).read_text().splitlines():
        kind, _, value = row.partition(":")
        if kind == "SF":
            file = value
        elif kind == "DA":
            line, runs = value.split(",")[:2]
            lines[file][int(line)] = int(runs)
        elif kind == "BRDA":
            line, _, _, runs = value.split(",")
            outcomes[file][int(line)].append(0 if runs == "-" else int(runs))
    return lines, outcomes


def code_lines(path):
    """The lines before the unit tests."""
    lines = Path(path).read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#\[cfg\((all\()?test\b", line) and lines[number + 1].startswith("mod "):
            return lines[:number]
    return lines


def listed():
    entries, file = Counter(), None
    for row in LIST.read_text().splitlines():
        if row.startswith("src/"):
            file = row
        elif row.startswith(("    | ", "    ? ", "    ~ ")):
            entries[file, row[4], row[6:]] += 1
    return entries


def main(report, *options):
    lines, outcomes = measured(report)
    found, sums = Counter(), defaultdict(Counter)
    names = [REDIS] if "--nodes" in options else ROOMS
    for path in sorted(filter(room, lines)):
        code = code_lines(path)
        name, total = str(Path(path).relative_to(ROOT)), sums[room(path)]
        for number, runs in lines[path].items():
            if number > len(code) or not re.search(r"\w", code[number - 1]):
                continue
            total["lines"] += 1
            total["lines run"] += runs > 0
            if runs == 0 and room(path) in names:
                found[name, "|", code[number - 1].strip()] += 1
        for number, runs in outcomes[path].items():
            if number > len(code):
                continue
            total["branches"] += len(runs)
            total["branches run"] += sum(count > 0 for count in runs)
            if any(runs) and not all(runs) and room(path) in names:
                found[name, "?", code[number - 1].strip()] += 1

    if set(names) - set(sums):
        sys.exit(f"no coverage of {set(names) - set(sums)}")
    print("| room | lines | reached | branches | reached |\n|---|---:|---:|---:|---:|")
    for name in names:
        total = sums[name]
        shares = [f"{total[kind]} | {100 * total[f'{kind} run'] / max(total[kind], 1):.1f}%" for kind in ("lines", "branches")]
        print(f"| `{name}` | {' | '.join(shares)} |")

    entries = listed()
    if strange := {file for file, _, _ in entries if room(ROOT / file) not in (*ROOMS, REDIS)}:
        sys.exit(f"uncovered.txt lists what is not measured: {strange}")
    entries = Counter({key: count for key, count in entries.items() if room(ROOT / key[0]) in names})
    exact = Counter({key: count for key, count in entries.items() if key[1] != "~"})
    either = Counter({(file, text): count for (file, kind, text), count in entries.items() if kind == "~"})
    problems = [
        f"uncovered.txt lists what is not in the code: {file}\n    ~ {text}"
        for (file, text), count in sorted(either.items())
        if [line.strip() for line in code_lines(ROOT / file)].count(text) < count
    ]
    for (file, kind, text), count in sorted((found - exact).items()):
        if count > either[file, text]:
            problems.append(f"no test reaches, and uncovered.txt does not list: {file}\n    {kind} {text}")
    for (file, kind, text), _ in sorted((exact - found).items()):
        problems.append(f"uncovered.txt lists, and a test reaches by now: {file}\n    {kind} {text}")
    sys.exit("\n".join(problems) or None)


main(*sys.argv[1:])
