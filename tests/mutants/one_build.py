#!/usr/bin/env python3
"""Tests mutants of cargo-mutants, all from one build: a mutated function has all its variants, and an environment
variable chooses one. A build for each mutant would take most of a day.

    one_build.py MUTANTS.json                  prints the names
    one_build.py MUTANTS.json OUTCOMES.tsv     tests those whose names are on the standard input, in that order

MUTANTS.json is what `cargo mutants --list --json` prints. A name is the path of the file and the description, without
the line; the second with the same name has `#2` after it. OUTCOMES.tsv gets a line per mutant: its name, its outcome
(`caught`, `aborted`, `timeout`, `missed`, `unviable`), and the test that failed or another reason. Existing lines are
kept, and their mutants are not tested again.
"""

import bisect
import collections
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target"
TREE = TARGET / "mutants" / "tree"
TESTS = [*"-p tower-dpop -p tower-dpop-tests --lib --test it --test servers --all-features".split()]
# These tests read the sources.
SKIPPED = ["--skip", "docs::", "--skip", "house::", "--skip", "requirements::"]
# The copy has another version, which is in `user-agent`, too.
VERSIONED = ["--skip", "tokens::http::sends_only_the_required_headers"]
# Two minutes of arithmetic, which uses nothing of what is changed.
ARITHMETIC = ["--skip", "p256_table::"]
ALL = [("it", *SKIPPED), ("servers", *VERSIONED), ("tower_dpop", *ARITHMETIC)]
# Properties and models, which take most of the time and are not often the first to fail.
SLOW = ["--skip", "proof::freshness::no_proof_is", "--skip", "proof::replay::model::", "--skip", "proof::replay::shares::"]
CPU_SECONDS = 300
WALL_SECONDS = 1500
# Errors that may be due to the `match` around a variant, so that the variant may compile alone: constants, the type of
# an `impl Trait`, types that cannot be inferred.
NOT_OF_THE_VARIANT = {"E0015", "E0282", "E0283", "E0308", "E0493", "E0658"}
VARIABLE = "TOWER_DPOP_MUTANT"
SWITCH = f"""
pub(crate) fn active_mutant() -> u32 {{
    static ACTIVE: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {{
        std::env::var("{VARIABLE}").map_or(0, |number| number.parse().unwrap())
    }});
    *ACTIVE
}}
"""


class Mutant:
    def __init__(self, number, listed, seen):
        self.number = number
        self.path = listed["file"]
        name = re.sub(r":\d+:\d+:", ":", listed["name"], count=1)
        seen[name] += 1
        self.name = name if seen[name] == 1 else f"{name} #{seen[name]}"
        self.function = listed["function"]
        self.span = listed["span"]
        self.replacement = listed["replacement"]

    def first_runs(self):
        """The tests that are most likely to fail: those of the file, then those of its folder and what uses it."""
        *folders, file = Path(self.path).with_suffix("").parts[1:]
        tests = "::".join([*folders, file, ""])
        yield "it", tests, *SLOW
        yield "tower_dpop", tests
        yield "it", f"{folders[0]}::", "resource::", "telemetry::", "rfc9449::", *SLOW


class Source:
    """A source file, and the functions in it that have mutants."""

    def __init__(self, path, mutants):
        self.path = path
        self.text = (ROOT / path).read_text()
        self.starts = [0]
        for line in self.text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        spans = sorted({self.span(m.function["span"]) for m in mutants if m.function})
        # A function inside another one belongs to the outer one.
        outer = []
        for start, end in spans:
            if not outer or start >= outer[-1][1]:
                outer.append((start, end))
        self.functions = {span: [] for span in outer}
        for mutant in mutants:
            if mutant.function:
                start, _ = self.span(mutant.function["span"])
                self.functions[outer[bisect.bisect(outer, (start, len(self.text))) - 1]].append(mutant)

    def span(self, span):
        start, end = (self.starts[p["line"] - 1] + p["column"] - 1 for p in (span["start"], span["end"]))
        return start, end

    def mutated(self, mutant, start, end):
        """A part of the text with a mutant in it."""
        begin, stop = self.span(mutant.span)
        return f"{self.text[start:begin]} {mutant.replacement} {self.text[stop:end]}"

    def places(self, start, end):
        """Where `fn` and the body of a function begin."""
        for line in re.finditer(r"^[^\n]*$", self.text[start:end], re.M):
            found = re.search(r"\bfn\s+\w+", line[0])
            if found and not re.match(r"\s*(//|#\[)", line[0]):
                keyword = start + line.start() + found.start()
                return keyword, self.text.index("{", keyword, end)
        raise ValueError(f"{self.path}: no function in {self.text[start:end]!r}")

    def with_variants(self, left_out):
        """The text with all variants, and the lines of each function and of each variant."""
        text, at, functions, variants = "", 0, [], []
        for (start, end), mutants in sorted(self.functions.items()):
            mutants = [m for m in mutants if m.name not in left_out]
            if not mutants:
                continue
            keyword, body = self.places(start, end)
            # A constant function cannot read a variable.
            before = re.sub(r"\bconst (?=(unsafe |extern )?$)", "", self.text[start:keyword])
            text += self.text[at:start] + before + self.text[keyword:body]
            first = text.count("\n") + 1
            text += "{ match crate::active_mutant() {\n"
            for mutant in mutants:
                variant_first = text.count("\n") + 1
                text += f"{mutant.number} => {self.mutated(mutant, body, end)}\n"
                variants.append((variant_first, text.count("\n"), [mutant]))
            text += f"_ => {self.text[body:end]}\n}} }}"
            functions.append((first, text.count("\n") + 1, mutants))
            at = end
        return text + self.text[at:], functions, variants


def write(path, text):
    """Writes a file of the copy, unless it is unchanged, so that cargo does not build it again."""
    copy = TREE / path
    data = text if isinstance(text, bytes) else text.encode()
    if not copy.exists() or copy.read_bytes() != data:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)


def copied(name):
    """What a file without mutants is in the copy."""
    data = (ROOT / name).read_bytes()
    if name == "src/lib.rs":
        return data + SWITCH.encode()
    if name == "Cargo.toml":
        # With another version, cargo keeps what it builds here apart from what it builds in the tree itself.
        return re.sub(rb'(?m)^version = "([^"]*)"', rb'version = "\1-mutants"', data, count=1)
    if name == "Cargo.lock":
        return re.sub(rb'(name = "tower-dpop"\nversion = "[^"]*)"', rb'\1-mutants"', data)
    return data


def copy_tree(sources):
    """Copies all files but the sources with mutants."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if name not in sources and (ROOT / name).is_file():
            write(name, copied(name))
    for copy in [*TREE.glob("src/**/*.rs"), *TREE.glob("tests/**/*.rs")]:
        if str(copy.relative_to(TREE)) not in names:
            copy.unlink()


def build():
    """Builds the tests in the copy. Returns their programs, or errors."""
    command = ["cargo", "test", "--no-run", "--locked", "--message-format=json", "--target-dir", TARGET, *TESTS]
    run = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    messages = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    errors = [m["message"] for m in messages if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
    if run.returncode and not errors:
        sys.exit(run.stderr)
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}, errors


def write_variants(sources, left_out, report):
    """Writes the sources with the variants that compile, and builds. Returns the programs, and the mutants to be built
    alone."""
    alone = []
    while True:
        lines = {}
        for path, source in sources.items():
            text, *lines[path] = source.with_variants(left_out)
            write(path, text)
        built, errors = build()
        if not errors:
            return built, alone
        found = {}
        for error in errors:
            code = (error["code"] or {}).get("code", "")
            for path, line in spans(error):
                functions, variants = lines.get(path, ([], []))
                inside = lambda ranges: [m for first, last, ms in ranges if first <= line <= last for m in ms]
                if (mutants := inside(variants)) and code not in NOT_OF_THE_VARIANT:
                    found.update({m: error for m in mutants})
                else:
                    found.update({m: None for m in mutants or inside(functions)})
        if not found:
            # A call in a constant of a function that is not constant any more.
            called = {name for error in errors for name in re.findall(r"`(?:\S*::)?(\w+)`", error["message"])}
            for source in sources.values():
                for mutants in source.functions.values():
                    if mutants[0].function["function_name"].split("::")[-1] in called:
                        found.update({m: None for m in mutants if m.name not in left_out})
        if not found:
            sys.exit("".join(error["rendered"] for error in errors))
        for mutant, error in found.items():
            left_out.add(mutant.name)
            if error:
                report(mutant, "unviable", error["message"])
            else:
                alone.append(mutant)


def spans(error):
    """The places of an error: for one in a macro, where the macro is used."""
    for span in sorted(error["spans"], key=lambda span: not span["is_primary"]):
        while span.get("expansion") and not span["file_name"].startswith("src/"):
            span = span["expansion"]["span"]
        if span["is_primary"] or span["file_name"].startswith("src/"):
            yield span["file_name"], span["line_start"]
            return


def first_failure(program, folder, arguments, number):
    """The first test that fails with a mutant, or what else ended the run. Nothing if all pass."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    run = subprocess.Popen(
        [program, "--test-threads", "2", *arguments], cwd=folder, preexec_fn=limit, start_new_session=True,
        env={**os.environ, "CARGO_MANIFEST_DIR": str(folder), VARIABLE: str(number)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    late = threading.Event()
    timer = threading.Timer(WALL_SECONDS, lambda: (late.set(), os.killpg(run.pid, signal.SIGKILL)))
    timer.start()
    try:
        for line in run.stdout:
            if failed := re.match(r"test (\S+).* \.\.\. FAILED", line):
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                return "caught", failed[1]
        code = run.wait()
    finally:
        timer.cancel()
        run.stdout.close()
    if late.is_set() or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout", ""
    return ("aborted", f"with {code}") if code else None


def outcome_of(number, built, runs):
    """What the tests of these runs say about a mutant."""
    for program, *arguments in runs:
        folder = ROOT if program == "tower_dpop" else ROOT / "tests"
        outcome, test = first_failure(built[program], folder, arguments, number) or ("missed", "")
        # If the test passes when it is run again, the machine was busy: the test has not noticed the mutant.
        while outcome == "caught" and not first_failure(built[program], folder, ["--exact", test], number):
            arguments += ["--skip", test]
            outcome, test = first_failure(built[program], folder, arguments, number) or ("missed", "")
        if outcome != "missed":
            return outcome, test
    return "missed", ""


def main():
    seen = collections.Counter()
    listed = json.loads(Path(sys.argv[1]).read_text())
    mutants = [Mutant(number, one, seen) for number, one in enumerate(listed, 1)]
    if len(sys.argv) == 2:
        print("\n".join(m.name for m in mutants))
        return
    by_name = {m.name: m for m in mutants}
    mutants = [by_name[name] for name in sys.stdin.read().splitlines()]
    outcomes = Path(sys.argv[2])
    known = dict(line.split("\t")[:2] for line in outcomes.read_text().splitlines()) if outcomes.exists() else {}

    def report(mutant, outcome, reason):
        if mutant.name not in known:
            known[mutant.name] = outcome
            with outcomes.open("a") as file:
                file.write(f"{mutant.name}\t{outcome}\t{' '.join(reason.split())}\n")

    by_path = collections.defaultdict(list)
    for mutant in mutants:
        by_path[mutant.path].append(mutant)
    sources = {path: Source(path, of_file) for path, of_file in by_path.items()}
    copy_tree(sources)
    left_out = {name for name, outcome in known.items() if outcome == "unviable"}
    built, alone = write_variants(sources, left_out, report)
    alone += [m for m in mutants if not m.function]
    outcome, reason = outcome_of(0, built, ALL)
    if outcome != "missed":
        sys.exit(f"without a mutant: {outcome} {reason}")
    queue = [m for m in mutants if m not in alone and m.name not in known]
    print(f"{len(queue)} mutants to test in one build, {len(alone)} alone", flush=True)
    # One after the other: some tests write files, and two processes would write the same ones.
    missed = []
    for mutant in queue:
        outcome, test = outcome_of(mutant.number, built, mutant.first_runs())
        missed.append(mutant) if outcome == "missed" else report(mutant, outcome, test)
    for mutant in missed:
        report(mutant, *outcome_of(mutant.number, built, ALL))
    for mutant in alone:
        if mutant.name in known:
            continue
        for path, source in sources.items():
            write(path, source.mutated(mutant, 0, len(source.text)) if path == mutant.path else source.text)
        built, errors = build()
        report(mutant, *(("unviable", errors[0]["message"]) if errors else outcome_of(0, built, [*mutant.first_runs(), *ALL])))


main()
