#!/usr/bin/env python3
"""What the tools of `.ci/gates` find in the dependencies of all packages, compared with the exceptions that are listed.

    dependencies.py advisories DATABASE FOLDER…    exceptions: .cargo/audit.toml
    dependencies.py policy FOLDER…                 .deny.toml
    dependencies.py rust-version FOLDER

The tools judge one lock file at a time. An exception may concern a single one, and it is one too many only if it matches in none.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib


def fail(lines):
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1 if lines else 0)


def advisories(database, *folders):
    with open(".cargo/audit.toml", "rb") as file:
        listed = set(tomllib.load(file)["advisories"]["ignore"])
    found = {}
    for folder in folders:
        lock = os.path.abspath(f"{folder}/Cargo.lock")
        command = ["cargo-audit", "audit", "--db", os.path.abspath(database), "--no-fetch", "--stale", "--json", "--file", lock]
        # Elsewhere, so that the tool does not read the list itself: it says nothing of entries that match nothing.
        with tempfile.TemporaryDirectory() as elsewhere:
            run = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
        try:
            report = json.loads(run.stdout)
        except json.JSONDecodeError:
            fail([f"cargo-audit read nothing of {lock}: {run.stderr}"])
        entries = [*report["vulnerabilities"]["list"], *(entry for kind in report["warnings"].values() for entry in kind)]
        for entry in entries:
            package = f"{entry['package']['name']} {entry['package']['version']}"
            advisory = entry["advisory"]
            name, title = (advisory["id"], advisory["title"]) if advisory else ("yanked", "was withdrawn from the registry")
            found.setdefault(name, set()).add(f"{package} in {folder}/Cargo.lock: {title}")
        print(f"{folder}/Cargo.lock: {report['lockfile']['dependency-count']} packages against "
              f"{report['database']['advisory-count']} advisories")
    for name in sorted(found):
        for where in sorted(found[name]):
            print(f"{'listed' if name in listed else 'NOT LISTED'}: {name}: {where}")
    fail([f"{name} is not listed in .cargo/audit.toml" for name in sorted(found.keys() - listed)]
         + [f".cargo/audit.toml lists {name}, which no lock file has any more" for name in sorted(listed - found.keys())])


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
        matched_nothing, duplicates, checked = set(), [], False
        for line in run.stderr.splitlines():
            if not line.startswith("{"):
                continue
            message = json.loads(line)
            fields = message["fields"]
            spans = "; ".join(label["span"] for label in fields.get("labels", []))
            if message["type"] == "summary":
                checked = True
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
        if not checked:
            errors.append(f"cargo-deny ended early: {run.stderr}")
        unused.append(matched_nothing)
        print(f"{folder}/Cargo.lock: {len(duplicates)} packages in more than one version: {', '.join(duplicates)}")
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
