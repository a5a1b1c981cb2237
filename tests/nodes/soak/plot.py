#!/usr/bin/env python3
"""Draws what the soak measured: `plot.py FOLDER SVG`, with the folder of the test's results.

Above: the memory of both nodes and of Redis. Below: accepted requests per second. Bands are disturbances. The picture has a
background of its own, so it is legible on any page.
"""

import csv
import sys
from pathlib import Path

WIDTH, LEFT, RIGHT = 940, 64, 16
UPPER, LOWER = (56, 250), (290, 400)
LEGEND = 440
POINTS = 200

STYLE = """
.page { fill: #ffffff; stroke: #d0d7de }
.grid { stroke: #d8dee4; stroke-width: 1 }
text { fill: #24292f; font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 13px }
.title { font-weight: 600; font-size: 15px }
.curve { fill: none; stroke-width: 1.6 }
.node_0 { stroke: #0969da }
.node_1 { stroke: #8250df }
.redis { stroke: #cf222e }
.accepted { stroke: #1a7f37 }
.clock { fill: #d4a72c }
.issuer { fill: #54aeff }
.key { fill: #4ac26b }
.store { fill: #ff8182 }
.secret { fill: #c297ff }
@media (prefers-color-scheme: dark) {
  .page { fill: #161b22; stroke: #30363d }
  .grid { stroke: #30363d }
  text { fill: #e6edf3 }
  .node_0 { stroke: #58a6ff }
  .node_1 { stroke: #bc8cff }
  .redis { stroke: #ff7b72 }
  .accepted { stroke: #56d364 }
}
"""

# The start of a disturbance's name, the class of its band, and what the legend says.
KINDS = [
    ("Redis", "store", "Redis: killed, stopped, cut off, failed over"),
    ("Clock", "clock", "clock of a node set ahead or back"),
    ("Issuer", "issuer", "issuer unreachable or failing"),
    ("Key", "key", "issuer's key changed"),
    ("Secret", "secret", "nonce secret changed"),
]


def main(folder: Path, target: Path) -> None:
    samples = [{name: float(value) for name, value in row.items()} for row in rows(folder / "samples.csv")]
    last = samples[-1]["second"]
    step = max(1, len(samples) // POINTS)

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / last

    def y(part: tuple[int, int], value: float, top: float) -> float:
        return part[1] - (part[1] - part[0]) * min(value / top, 1)

    out: list[str] = []

    def text(at: float, line: float, words: str, css: str = "", anchor: str = "start") -> None:
        out.append(f'<text x="{at:.0f}" y="{line:.0f}" class="{css}" text-anchor="{anchor}">{words}</text>')

    def grid(part: tuple[int, int], top: float) -> None:
        for number in range(5):
            value = top * number / 4
            line = y(part, value, top)
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{line:.1f}" y2="{line:.1f}" class="grid"/>')
            text(LEFT - 8, line + 4, f"{value:g}", anchor="end")

    def curve(part: tuple[int, int], points: list[tuple[float, float]], top: float, css: str) -> None:
        line = " ".join(f"{x(second):.0f},{y(part, value, top):.1f}" for second, value in points)
        out.append(f'<path d="M{line}" class="curve {css}"/>')

    # Each kind has a row of its own between the two charts, as one path.
    for number, (start, css, _) in enumerate(KINDS):
        top = UPPER[1] + 5 + 6 * number
        bands = [
            f"M{x(float(row['began'])):.1f} {top}h{max(x(float(row['ended'])) - x(float(row['began'])), 0.8):.1f}v5"
            f"H{x(float(row['began'])):.1f}z"
            for row in rows(folder / "disturbances.csv")
            if row["kind"].startswith(start)
        ]
        out.append(f'<path d="{"".join(bands)}" class="{css}"/>')

    mebibytes = [
        (name, [(row["second"], row[name] / 2**20) for row in samples[::step] if row[name] > 0])
        for name in ("node_0", "node_1", "redis")
    ]
    top = nice(max(value for _, points in mebibytes for _, value in points) * 1.1)
    grid(UPPER, top)
    for name, points in mebibytes:
        curve(UPPER, points, top, name)

    thinned = samples[::step]
    rates = [
        (after["second"], (after["accepted"] - before["accepted"]) / (after["second"] - before["second"]))
        for before, after in zip(thinned, thinned[1:])
    ]
    top = nice(max(rate for _, rate in rates) * 1.1)
    grid(LOWER, top)
    curve(LOWER, rates, top, "accepted")

    minutes = int(last // 60)
    every = max(1, round(minutes / 6 / 5) * 5) if minutes > 12 else 1
    for minute in range(0, minutes + 1, every):
        text(x(minute * 60), LOWER[1] + 18, f"{minute} min", anchor="middle")

    text(20, 26, "Two nodes on one Redis, with disturbances", "title")
    text(LEFT, 46, "memory in MiB: resident of both nodes, used by Redis")
    text(WIDTH - RIGHT, LOWER[1] + 34, "lower chart: accepted requests per second", anchor="end")
    at = 20
    for css, words in [("node_0", "node 0"), ("node_1", "node 1"), ("redis", "Redis"), ("accepted", "accepted")]:
        out.append(f'<path d="M{at} {LEGEND}h22" class="curve {css}"/>')
        text(at + 28, LEGEND + 4, words)
        at += 110
    for number, (_, css, words) in enumerate(KINDS):
        at, line = 20 + 310 * (number % 3), LEGEND + 22 * (1 + number // 3)
        out.append(f'<rect x="{at}" y="{line - 6}" width="22" height="10" class="{css}"/>')
        text(at + 28, line + 4, words)

    height = LEGEND + 64
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>Memory and accepted requests of two nodes during {minutes} minutes with disturbances</title>\n"
        f"<style>{STYLE}</style>\n"
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" class="page"/>\n' + "\n".join(out) + "\n</svg>\n"
    )
    target.write_text(svg)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def nice(value: float) -> float:
    """The next larger number that four lines divide well."""
    for factor in (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 60, 80, 100, 120, 160, 200, 240, 320, 400, 600, 800, 1000, 2000, 4000):
        if factor >= value:
            return factor
    return value


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
