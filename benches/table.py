"""Make the tables of benches/README.md from a pytest-benchmark JSON file.

    python benches/table.py benches/results/<date>-<machine>.json

Each group of benches becomes one table: median seconds (CPU time, or device time where a GPU was timed), the ratio to
brockett's own first row of the group, and what else was noted (errors, residuals). The text between the two markers of
that kind in benches/README.md is replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: made by table.py -->", "<!-- end of results -->"
GPU_BEGIN, GPU_END = "<!-- results on a GPU: made by table.py -->", "<!-- end of results on a GPU -->"


def seconds(t: float) -> str:
    return f"{t * 1e3:.3g} ms" if t < 1 else f"{t:.3g} s"


def note(extra: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in extra.items())


def table(name: str, rows: list[dict[str, Any]], clock: str) -> list[str]:
    base = next((r for r in rows if r["params"]["peer"].startswith("brockett")), rows[0])["stats"]["median"]
    head = [f"| what | {clock} time | over brockett | rounds | |", "| --- | ---: | ---: | ---: | --- |"]
    lines = [f"**{name}**", "", *head]
    for r in rows:
        t = r["stats"]["median"]
        cells = [r["params"]["peer"], seconds(t), f"{t / base:.3g}", str(r["stats"]["rounds"]), note(r["extra_info"])]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def tables(result: dict[str, Any]) -> str:
    info = result["machine_info"]
    peers = ", ".join(f"{p} {v}" for p, v in info["peers"].items())
    gpu = info.get("gpu")
    lines = [
        f"{result['datetime'][:10]}; {gpu or info['cpu'].get('brand_raw', info['machine'])}; {info['brockett']}; "
        f"peers: {peers}. " + ("Median device time." if gpu else "Median CPU seconds of the process at one thread."),
        "",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for bench in result["benchmarks"]:
        groups.setdefault(bench["group"], []).append(bench)
    for name, rows in groups.items():
        lines += table(name, rows, "device" if gpu else "CPU")
    return "\n".join(lines)


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text())
    readme = Path(__file__).parent / "README.md"
    text = readme.read_text()
    begin, end = (GPU_BEGIN, GPU_END) if "gpu" in result["machine_info"] else (BEGIN, END)
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    readme.write_text(f"{head}{begin}\n\n{tables(result)}\n{end}{tail}")


if __name__ == "__main__":
    main()
