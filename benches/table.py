"""Make the tables of benches/README.md from a pytest-benchmark JSON file.

    python benches/table.py benches/results/<date>-<machine>.json

Each group of benches becomes one table: median CPU seconds, the ratio to brockett's own first row of the group, and
what else was noted (errors, residuals). The text between the two markers in benches/README.md is replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: made by table.py -->", "<!-- end of results -->"


def seconds(t: float) -> str:
    return f"{t * 1e3:.3g} ms" if t < 1 else f"{t:.3g} s"


def note(extra: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in extra.items())


def table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    base = next((r for r in rows if r["params"]["peer"].startswith("brockett")), rows[0])["stats"]["median"]
    head = ["| what | CPU time | over brockett | rounds | |", "| --- | ---: | ---: | ---: | --- |"]
    lines = [f"**{name}**", "", *head]
    for r in rows:
        t = r["stats"]["median"]
        cells = [r["params"]["peer"], seconds(t), f"{t / base:.3g}", str(r["stats"]["rounds"]), note(r["extra_info"])]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def tables(result: dict[str, Any]) -> str:
    info = result["machine_info"]
    peers = ", ".join(f"{p} {v}" for p, v in info["peers"].items())
    lines = [
        f"{result['datetime'][:10]}; {info['cpu'].get('brand_raw', info['machine'])}; {info['brockett']}; "
        f"peers: {peers}. Median CPU seconds of the process at one thread.",
        "",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for bench in result["benchmarks"]:
        groups.setdefault(bench["group"], []).append(bench)
    for name, rows in groups.items():
        lines += table(name, rows)
    return "\n".join(lines)


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text())
    readme = Path(__file__).parent / "README.md"
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n\n{tables(result)}\n{END}{tail}")


if __name__ == "__main__":
    main()
