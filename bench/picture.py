#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The comparison as a picture: processor time per call, as a multiple of the floor's, on a logarithmic axis.

        picture.py bench-compare.json >docs/performance.svg     # again, without measuring
        picture.py --tables bench-compare.json                  # the tables of docs/performance.md

Plain SVG; its colours follow the reader's light or dark scheme.
"""

import json
import math
import sys
from html import escape

FLOOR = "floor"
ORDER = ["raw", FLOOR, "baton", "buffer", "sdbus", "nng", "grpc"]
LABELS = {"raw": "raw socket", FLOOR: "floor", "baton": "baton", "buffer": "baton, buffers", "sdbus": "sd-bus", "nng": "nng", "grpc": "gRPC"}
WIDTH, TOP, MARGIN = 960, 92, 20
BAR, GAP, LABEL = 11, 16, 120
COLUMN = (WIDTH - 2 * MARGIN - LABEL) / 2 - 30

STYLE = """
  svg { font: 12px system-ui, sans-serif; }
  .ground { fill: #ffffff; } .text { fill: #1f2328; } .faint { fill: #59636e; } .grid { stroke: #d1d9e0; }
  .one { stroke: #59636e; }
  .raw { fill: #9aa4af; } .floor { fill: #59636e; } .baton { fill: #0b7a4b; } .buffer { fill: #4fa97f; } .sdbus { fill: #b35900; }
  .nng { fill: #7a4bc2; } .grpc { fill: #c02b4d; }
  .value { font-size: 10px; } .title { font-size: 16px; font-weight: 600; } .head { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } .text { fill: #e6edf3; } .faint { fill: #9198a1; } .grid { stroke: #30363d; }
    .one { stroke: #9198a1; }
    .raw { fill: #6b747e; } .floor { fill: #a5aeb8; } .baton { fill: #3fb97f; } .buffer { fill: #2c7d57; } .sdbus { fill: #e39a4c; }
    .nng { fill: #a98be8; } .grpc { fill: #f0718c; }
  }
"""


def size_text(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


def time_text(us):
    return f"{us / 1000:.3g} ms" if us >= 1000 else f"{us:.3g} us"


def ratio_of(result, name):
    ratios = (result["candidates"].get(name) or {}).get("ratios")
    return ratios["cpu_us_per_call"] if ratios else None


class Picture:
    def __init__(self, document):
        self.document = document
        self.names = [name for name in ORDER if name in document["versions"]]
        self.loads = []
        for result in document["results"]:
            if (result["size"], result["window"]) not in self.loads:
                self.loads.append((result["size"], result["window"]))
        ratios = [ratio for result in document["results"] for name in self.names if (ratio := ratio_of(result, name))]
        self.low = math.floor(math.log10(min(ratios + [.5])) * 2) / 2
        self.high = math.ceil(math.log10(max(ratios + [10])) * 2) / 2
        self.group = len(self.names) * BAR + GAP
        self.height = TOP + len(self.loads) * self.group + 42
        self.parts = []

    def add(self, part):
        self.parts.append(part)

    def text(self, x, y, text, classes="text", anchor="start"):
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{escape(text)}</text>')

    def at(self, left, ratio):
        return left + (math.log10(ratio) - self.low) / (self.high - self.low) * COLUMN

    def axis(self, left, title):
        bottom = TOP + len(self.loads) * self.group
        self.text(left, TOP - 24, title, "text head")
        for exponent in range(math.ceil(self.low), math.floor(self.high) + 1):
            x = self.at(left, 10 ** exponent)
            kind = "one" if exponent == 0 else "grid"
            self.add(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" class="{kind}"/>')
            self.text(x, TOP - 9, f"{10.0 ** exponent:g}", "faint value", "middle")

    def bars(self, left, result, top):
        shown = [name for name in self.names if ratio_of(result, name) or name in result["failures"]]
        for i, name in enumerate(shown):
            y = top + i * BAR
            ratio = ratio_of(result, name)
            if not ratio:
                self.text(left + 4, y + 9, f"{LABELS[name]}: failed", "faint value")
                continue
            x = self.at(left, ratio)
            text = f"{ratio:.3g}" if name != FLOOR else \
                f"1 = {time_text(result['candidates'][FLOOR]['cpu_us_per_call'])}"
            self.add(f'<rect x="{left}" y="{y}" width="{max(x - left, 1):.1f}" height="{BAR - 2}" class="{name}">'
                     f"<title>{escape(LABELS[name])}: {text}</title></rect>")
            self.text(x + 4, y + 8.5, text, "text value" if name in ("baton", "buffer") else "faint value")

    def legend(self):
        x = MARGIN
        for name in self.names:
            self.add(f'<rect x="{x}" y="38" width="10" height="10" class="{name}"/>')
            self.text(x + 15, 47, LABELS[name])
            x += 30 + 7.5 * len(LABELS[name])

    def draw(self):
        lefts = {1: MARGIN + LABEL, 2: MARGIN + LABEL + COLUMN + 50}
        title = "Processor time per call, both sides, as a multiple of the bare loop's (less is better)"
        self.text(MARGIN, 26, title, "text title")
        self.legend()
        for cores, left in lefts.items():
            self.axis(left, "one core" if cores == 1 else "two cores")
        for i, (size, window) in enumerate(self.loads):
            top = TOP + i * self.group
            self.text(MARGIN, top + 14, size_text(size), "text head")
            self.text(MARGIN, top + 29, f"{window} in flight", "faint")
            for result in self.document["results"]:
                if (result["size"], result["window"]) == (size, window):
                    self.bars(lefts[result["cores"]], result, top)
        environment = self.document["environment"]
        versions = ", ".join(dict.fromkeys(version for version in self.document["versions"].values() if version))
        self.text(MARGIN, self.height - 14, f"{environment['processor']}, {environment['processors']} processors, "
                  f"Linux {environment['kernel']}; {versions}", "faint value")
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" '
                f'height="{self.height}" role="img" aria-label="{escape(title)}">')
        return "\n".join([head, f"<style>{STYLE}</style>",
                          f'<rect width="{WIDTH}" height="{self.height}" class="ground"/>'] + self.parts + ["</svg>", ""])


def draw(document):
    return Picture(document).draw()


def cell(result, name, figure):
    candidate = result["candidates"].get(name)
    if not candidate or not candidate["ratios"]:
        return "failed" if name in result["failures"] else ""
    if name == FLOOR:
        value = candidate[figure]
        return f"{value / 1000:,.4g} k/s" if figure == "rate" else time_text(value)
    return f"{candidate['ratios'][figure]:.3g}"


def tables(document):
    """One table for each figure and number of cores; the floor's column is absolute, the others are its multiples."""
    names = [FLOOR] + [name for name in ORDER if name in document["versions"] and name != FLOOR]
    titles = {"cpu_us_per_call": "Processor time per call", "p50_us": "Latency, p50", "rate": "Calls per second"}
    lines = []
    for figure, title in titles.items():
        for cores in sorted({result["cores"] for result in document["results"]}):
            lines += ["", f"{title}, {'one core' if cores == 1 else 'two cores'}:", "",
                      "| | " + " | ".join(LABELS[name] for name in names) + " |", "| --- |" + " --- |" * len(names)]
            for result in document["results"]:
                if result["cores"] == cores:
                    cells = " | ".join(cell(result, name, figure) for name in names)
                    lines.append(f"| {size_text(result['size'])}, {result['window']} in flight | {cells} |")
    return "\n".join(lines) + "\n"


def main(arguments):
    render = tables if "--tables" in arguments else draw
    with open(arguments[-1], encoding="utf-8") as file:
        sys.stdout.write(render(json.load(file)))


if __name__ == "__main__":
    main(sys.argv[1:])
