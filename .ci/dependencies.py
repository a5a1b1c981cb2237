#!/usr/bin/env python3
"""What the tools of `.ci/gates` find in the dependencies of all packages, compared with the exceptions that are listed.

    dependencies.py advisories DATABASE FOLDER…    exceptions: .ci/advisories.toml
    dependencies.py policy FOLDER…                 .deny.toml
    dependencies.py rust-version FOLDER

The tools judge one lock file at a time. An exception may concern a single one, and it is one too many only if it matches in none.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# The exit code if the database of advisories is old.
STALE = 3


def fail(lines):
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    if lines:
        sys.exit(1)


# Days after which a database is too old to show that there is no advisory. It only counts as not compared.
OLD = 30


def advisories(database, *folders):
    with open(".ci/advisories.toml", "rb") as file:
        known = {(entry["id"], entry["package"], folder) for entry in tomllib.load(file)["known"] for folder in entry["folders"]}
    found = {}
    for folder in folders:
        lock = os.path.abspath(f"{folder}/Cargo.lock")
        command = ["cargo-audit", "audit", "--db", os.path.abspath(database), "--no-fetch", "--stale", "--json", "--file", lock]
        # Elsewhere, where no configuration ignores an advisory.
        with tempfile.TemporaryDirectory() as elsewhere:
            run = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
        try:
            report = json.loads(run.stdout)
        except json.JSONDecodeError:
            fail([f"cargo-audit read nothing of {lock}: {run.stderr}"])
        entries = [*report["vulnerabilities"]["list"], *(entry for kind in report["warnings"].values() for entry in kind)]
        for entry in entries:
            package, advisory = entry["package"], entry["advisory"]
            name, title = (advisory["id"], advisory["title"]) if advisory else ("yanked", "was withdrawn from the registry")
            found[name, package["name"], folder] = f"{name}: {package['name']} {package['version']} in {folder}/Cargo.lock: {title}"
        print(f"{folder}/Cargo.lock: {report['lockfile']['dependency-count']} packages against "
              f"{report['database']['advisory-count']} advisories")
    for key, text in sorted(found.items()):
        print(f"{'listed' if key in known else 'NOT LISTED'}: {text}")
    fail([f"{found[key]}: not in .ci/advisories.toml" for key in sorted(found.keys() - known)]
         + [f".ci/advisories.toml has {' '.join(key)}, which is not in the lock file any more" for key in sorted(known - found.keys())])
    newest = max(date for path in Path(database).glob("crates/*/*.md") for date in re.findall(r'^date = "(.*)"$', path.read_text(), re.M))
    age = (datetime.date.today() - datetime.date.fromisoformat(newest)).days
    print(f"the newest advisory of the database is of {newest}")
    if age > OLD:
        print(f"the advisory database is {age} days old", file=sys.stderr)
        sys.exit(STALE)


# What cargo-deny calls an entry of its configuration that matches nothing.
UNUSED = {"license-not-encountered", "unmatched-source", "unused-wrapper"}
# Beside an error that says the same.
REPEATED = {"unmatched-wrapper"}


def policy(*folders):
    errors, unused = [], []
    for folder in folders:
        command = ["cargo-deny", "--format", "json", "--manifest-path", f"{folder}/Cargo.toml", "--workspace", "--locked",
                   "--config", ".deny.toml", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]
        run = subprocess.run(command, capture_output=True, text=True)
        matched_nothing, duplicates, licences = set(), [], 0
        for line in run.stderr.splitlines():
            if not line.startswith("{"):
                continue
            message = json.loads(line)
            fields = message["fields"]
            spans = "; ".join(label["span"] for label in fields.get("labels", []))
            if message["type"] == "summary":
                # Each package with an accepted licence counts as a help.
                licences = fields["licenses"]["helps"]
            elif fields.get("code") in UNUSED:
                matched_nothing.add((fields["code"], spans))
            elif fields.get("code") == "duplicate":
                name = re.search(r"'(.*)'", fields["message"])[1]
                versions = re.findall(rf"^{re.escape(name)} (\S+)", spans, re.M)
                duplicates.append(f"{name} ({', '.join(versions)})")
            elif fields.get("severity") == "error":
                errors.append(f"{folder}: {fields['message']}: {spans}")
            elif fields.get("severity") == "warning" and fields.get("code") not in REPEATED:
                print(f"{folder}: {fields['message']}: {spans}")
        if licences == 0:
            errors.append(f"{folder}: cargo-deny judged no licence: {run.stderr}")
        unused.append(matched_nothing)
        print(f"{folder}/Cargo.lock: {licences} packages, {len(duplicates)} in more than one version: {', '.join(duplicates)}")
    fail(errors + [f".deny.toml: {code}: {spans}" for code, spans in sorted(set.intersection(*unused))])


def rust_version(folder):
    run = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1", "--all-features",
                          "--manifest-path", f"{folder}/Cargo.toml"], check=True, capture_output=True, text=True)
    packages = json.loads(run.stdout)["packages"]

    def number(text):
        return tuple(int(part) for part in text.split("."))[:2]

    ours = next(package["rust_version"] for package in packages if package["name"] == "tower-dpop")
    silent = [package["name"] for package in packages if not package["rust_version"]]
    newer = [package for package in packages if package["rust_version"] and number(package["rust_version"]) > number(ours)]
    print(f"{len(packages)} packages, of which {len(silent)} do not say which Rust they need; "
          f"the newest needs {max((p['rust_version'] for p in packages if p['source'] and p['rust_version']), key=number)}")
    fail([f"{p['name']} {p['version']} needs Rust {p['rust_version']}, the crate says {ours}" for p in newer])


if __name__ == "__main__":
    {"advisories": advisories, "policy": policy, "rust-version": rust_version}[sys.argv[1]](*sys.argv[2:])
