#!/usr/bin/env python3
"""Crates whose types are in the public API, from rustdoc's JSON, compared with the list of those that may be.

    public_types.py LIST JSON…

A line of the list is the crate that defines the type, and the feature that brings it, or `-` for all builds. JSON files are one with
the default features and one with all; crates of a feature may only be in the last. A line that matches nothing fails.
"""

import json
import sys


class Api:
    """The items that can be named from outside of a crate, and the crates of what they name."""

    def __init__(self, document):
        self.index, self.paths = document["index"], document["paths"]
        self.names = {0: None} | {int(number): crate["name"] for number, crate in document["external_crates"].items()}
        self.seen = set()
        # Crate to the first item that names something of it.
        self.found = {}
        self.item(document["root"], "")

    def item(self, number, where):
        """An item that is public, and what is below it."""
        if number in self.seen:
            return
        self.seen.add(number)
        item = self.index.get(str(number))
        if item is None:
            self.named(number, where)
            return
        kind, inner = next(iter(item["inner"].items()))
        if item["name"]:
            where = f"{where}::{item['name']}" if where else item["name"]
        if kind == "module":
            for child in inner["items"]:
                self.if_public(child, where)
        elif kind == "use":
            if inner["id"] is not None:
                self.item(inner["id"], where)
        elif kind == "impl":
            self.implementation(inner, where)
        else:
            # Fields, variants, methods and implementations are ids in lists; everything else is types.
            self.types(inner, where)
            for child in self.children(kind, inner):
                self.if_public(child, where)
            # Of a type, and of a trait: those for types of other crates are only there.
            for implementation in [*inner.get("impls", []), *inner.get("implementations", [])] if isinstance(inner, dict) else []:
                self.item(implementation, where)

    @staticmethod
    def children(kind, inner):
        if kind == "struct":
            shape = inner["kind"]
            if isinstance(shape, dict):
                return shape["plain"]["fields"] if "plain" in shape else [field for field in shape["tuple"] if field is not None]
        if kind == "enum":
            return inner["variants"]
        if kind == "variant" and isinstance(inner["kind"], dict):
            shape = inner["kind"]
            return shape["struct"]["fields"] if "struct" in shape else [field for field in shape["tuple"] if field is not None]
        if kind == "trait":
            return inner["items"]
        return []

    def if_public(self, number, where):
        item = self.index.get(str(number))
        # `default`: what is public because its parent is, as variants and the items of traits.
        if item is None or item["visibility"] in ("public", "default"):
            self.item(number, where)

    def implementation(self, inner, where):
        if inner["is_synthetic"] or inner["blanket_impl"]:
            return
        self.types({key: inner[key] for key in ("trait", "for", "generics")}, where)
        for child in inner["items"]:
            self.if_public(child, where)

    def types(self, value, where):
        """All that a part of a signature names."""
        if isinstance(value, list):
            for part in value:
                self.types(part, where)
        elif isinstance(value, dict):
            # A path: of a type, of a trait, of an associated type's trait.
            if "path" in value and "id" in value:
                self.named(value["id"], where)
            for key, part in value.items():
                if key not in ("impls", "implementations", "items", "variants"):
                    self.types(part, where)

    def named(self, number, where):
        path = self.paths.get(str(number))
        crate = self.names[path["crate_id"]] if path else None
        if crate not in (None, "core", "alloc", "std"):
            self.found.setdefault(crate, f"{where} names {'::'.join(path['path'])}")


def main(listed, *documents):
    allowed = {}
    with open(listed, encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                crate, feature = line.split()[:2]
                allowed[crate] = feature
    errors, unused = [], set(allowed)
    for number, document in enumerate(documents, 1):
        with open(document, encoding="utf-8") as file:
            api = Api(json.load(file))
        last = number == len(documents)
        for crate, where in sorted(api.found.items()):
            print(f"{'all features' if last else 'default features'}: {crate}: {where}")
            if crate not in allowed:
                errors.append(f"{crate} is not in {listed}: {where}")
            elif allowed[crate] != "-" and not last:
                errors.append(f"{crate} is listed for the feature {allowed[crate]}: {where}")
        unused -= api.found.keys()
        print(f"{len(api.seen)} items")
        if len(api.seen) < 500:
            errors.append(f"{document} was not read: it has {len(api.seen)} items")
    errors += [f"{listed}: no type of {crate} is in the public API any more" for crate in sorted(unused)]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
