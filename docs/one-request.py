#!/usr/bin/env python3
"""Writes one-request.svg beside this file: one request and the three parties, for the README.

The picture has a background of its own, so it is legible on any page. With `--check` nothing is written, and the exit code
says whether the file is what this would write.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 940, 492
AUTHORIZATION_SERVER, CLIENT, SERVICE = 130, 470, 810

STYLE = """
.page { fill: #f6f8fa; stroke: #d0d7de }
.party { fill: #ffffff; stroke: #57606a; stroke-width: 1.5 }
.checks { fill: #ddf4ff; stroke: #0969da }
.line { stroke: #8c959f; stroke-dasharray: 3 4 }
.arrow { stroke: #24292f; stroke-width: 1.5; fill: none }
.head { fill: #24292f }
text { fill: #24292f; font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 14px }
.code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12.5px }
.name { font-weight: 600; font-size: 15px }
.small { fill: #57606a; font-size: 13px }
.check { font-size: 13px }
.good { fill: #1a7f37; font-weight: 600 }
.bad { fill: #cf222e; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  .page { fill: #161b22; stroke: #30363d }
  .party { fill: #21262d; stroke: #8b949e }
  .checks { fill: #0c2d6b; stroke: #58a6ff }
  .line { stroke: #6e7681 }
  .arrow { stroke: #e6edf3 }
  .head { fill: #e6edf3 }
  text { fill: #e6edf3 }
  .small { fill: #adb5bf }
  .check { font-size: 13px }
.good { fill: #56d364 }
  .bad { fill: #ff7b72 }
}
"""


def text(x, y, words, style="", anchor="middle"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


def party(x, name, about):
    return [
        f'<rect x="{x - 110}" y="20" width="220" height="54" rx="8" class="party"/>',
        text(x, 43, name, "name"),
        text(x, 63, about, "small"),
        f'<line x1="{x}" y1="74" x2="{x}" y2="{HEIGHT - 20}" class="line"/>',
    ]


def arrow(y, start, end, above, below=()):
    """An arrow with lines of text, each a pair of words and style, above and below it."""
    step = 1 if end > start else -1
    middle = (start + end) / 2
    drawn = [
        f'<line x1="{start + 6 * step}" y1="{y}" x2="{end - 14 * step}" y2="{y}" class="arrow"/>',
        f'<path d="M{end - 4 * step} {y} l{-11 * step} -5 v10 z" class="head"/>',
    ]
    for place, (words, style) in enumerate(reversed(above)):
        drawn.append(text(middle, y - 8 - 18 * place, words, style))
    for place, (words, style) in enumerate(below):
        drawn.append(text(middle, y + 18 + 18 * place, words, style))
    return drawn


def picture():
    drawn = [f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" class="page"/>']
    drawn += party(AUTHORIZATION_SERVER, "Authorization server", "issues tokens")
    drawn += party(CLIENT, "Client", "has a private key")
    drawn += party(SERVICE, "Your service", "behind the DpopLayer")

    drawn += arrow(134, CLIENT, AUTHORIZATION_SERVER, [("1. POST /token", "code"), ("DPoP: a proof, signed by the key", "code")])
    drawn += arrow(190, AUTHORIZATION_SERVER, CLIENT, [("2. an access token for this key", "")], [("cnf.jkt = the key's thumbprint", "code")])

    request = [("3. GET /orders", "code"), ("Authorization: DPoP the token", "code"), ("DPoP: a new proof, signed by the key", "code")]
    drawn += arrow(262, CLIENT, SERVICE, request, [("for this method, URL, time and token", "small")])

    left, top = SERVICE - 122, 290
    drawn.append(f'<rect x="{left}" y="{top}" width="244" height="88" rx="8" class="checks"/>')
    checks = ["the token is valid", "the proof is for this request", "both name the same key", "the proof was not used before"]
    for place, check in enumerate(checks):
        drawn.append(text(left + 14, top + 22 + 19 * place, "✓ " + check, "check", "start"))
    drawn += arrow(362, left + 4, CLIENT, [("4. 200 OK", "good")])

    drawn.append(f'<rect x="{CLIENT - 110}" y="404" width="220" height="50" rx="8" class="party"/>')
    drawn.append(text(CLIENT, 425, "A thief", "name"))
    drawn.append(text(CLIENT, 444, "has the token, not the key", "small"))
    drawn += arrow(420, CLIENT + 108, SERVICE, [("the token, without a valid proof", "small")])
    drawn += arrow(444, SERVICE, CLIENT + 108, [], [("401", "bad")])

    label = (
        "The client sends a proof with its token request, and gets an access token for its key. It sends the token and a new "
        "proof to the service, which checks both and responds with 200. A thief who has only the token gets 401."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
            f' aria-label="{label}">',
            f"<style>{STYLE}</style>",
            *drawn,
            "</svg>",
            "",
        ]
    )


def main():
    file = Path(__file__).with_suffix(".svg")
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if file.read_text(encoding="utf-8") == picture() else f"{file}: run {__file__}")
    file.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
