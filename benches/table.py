"""Make the tables of benches/README.md from pytest-benchmark's JSON files.

    python benches/table.py benches/results/<date>-<machine>.json …

The first file says where and with what; the rows of further ones come behind its own, and those of a run with several
threads become a column. One table holds every bench: median seconds (CPU time, or device time where a GPU was timed),
the ratio to brockett's own first row of the group, the share of the rate of a matrix product, and what was checked
(errors, residuals). A second one holds the growth with the size, a third peak memory. The text between the two markers
of that kind in benches/README.md is replaced; `--print` as the first word shows the tables instead.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: made by table.py -->", "<!-- end of results -->"
GPU_BEGIN, GPU_END = "<!-- results on a GPU: made by table.py -->", "<!-- end of results on a GPU -->"
GROWTH, MEMORY = "growth: ", "peak memory "
GEMM = "of GEMM"


def seconds(t: float) -> str:
    return f"{t * 1e3:.3g} ms" if t < 1 else f"{t:.3g} s"


def note(extra: dict[str, Any]) -> str:
    shown = {k: v for k, v in extra.items() if k != GEMM}
    return ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def peer_of(bench: dict[str, Any]) -> str:
    return str(bench["params"].get("peer", "brockett"))


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def rows_of(name: str, rows: list[dict[str, Any]], wall: dict[tuple[str, str], float]) -> list[str]:
    group = name
    base = next((r for r in rows if "brockett" in peer_of(r)), rows[0])["stats"]["median"]
    lines = []
    for r in rows:
        t, extra = r["stats"]["median"], r["extra_info"]
        share = str(extra.get(GEMM, ""))
        peer = peer_of(r)
        cells = [name, peer, seconds(t), f"{t / base:.3g}", share, note(extra)]
        if wall:
            cells.insert(4, seconds(wall[group, peer]) if (group, peer) in wall else "")
        lines.append(line(*cells))
        name = ""
    return lines


def growth(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines, last = [], None
    for r in sorted(rows, key=lambda r: float(r["extra_info"]["n"])):
        n, t, extra = r["extra_info"]["n"], r["stats"]["median"], r["extra_info"]
        exponent = f"{math.log(t / last[1]) / math.log(n / last[0]):.2f}" if last else ""
        memory = f"{extra['peak MiB']:.4g} MiB" if "peak MiB" in extra else ""
        lines.append(line(name.removeprefix(GROWTH), str(n), seconds(t), exponent, memory, f"{extra['error']:.1e}"))
        name, last = "", (n, t)
    return lines


def memory(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for r in rows:
        peak, above = r["extra_info"]["peak MB"], r["extra_info"]["above what was there"]
        lines.append(line(name.removeprefix(MEMORY), peer_of(r), f"{peak:.0f} MB", f"{above:.0f} MB"))
        name = ""
    return lines


def head(*cells: str) -> list[str]:
    right = [i > 1 and cell not in ("answer", "error") for i, cell in enumerate(cells)]
    return [line(*cells), line(*("---:" if r else "---" for r in right))]


def tables(results: list[dict[str, Any]]) -> str:
    info = results[0]["machine_info"]
    peers = ", ".join(f"{p} {v}" for p, v in info["peers"].items())
    gpu = info.get("gpu")
    clock = "device" if gpu else "CPU"
    text = [
        f"{results[0]['datetime'][:10]}; {gpu or info['cpu'].get('brand_raw', info['machine'])}; {info['brockett']}; "
        f"peers: {peers}. " + ("Median device time." if gpu else "Median CPU seconds of the process at one thread."),
        "",
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    wall: dict[tuple[str, str], float] = {}
    threads = max(r["machine_info"].get("threads", 1) for r in results)
    for result in results:
        for bench in result["benchmarks"]:
            if result["machine_info"].get("threads", 1) > 1:
                wall[bench["group"], peer_of(bench)] = bench["stats"]["median"]
            else:
                groups.setdefault(bench["group"], []).append(bench)
    compared = [name for name in groups if not name.startswith((GROWTH, MEMORY))]
    if compared:
        cells = ["task", "what", f"{clock} time", "over brockett", "of a GEMM's rate", "answer"]
        if wall:
            cells.insert(4, f"wall time, {threads} threads")
        text += head(*cells)
        text += [row for name in compared for row in rows_of(name, groups[name], wall)] + [""]
    grown = [name for name in groups if name.startswith(GROWTH)]
    if grown:
        text += head("growth", "n", f"{clock} time", "exponent", "peak memory", "error")
        text += [row for name in grown for row in growth(name, groups[name])] + [""]
    resident = [name for name in groups if name.startswith(MEMORY)]
    if resident:
        text += head("peak memory", "what", "whole process", "above its weights and libraries")
        text += [row for name in resident for row in memory(name, groups[name])] + [""]
    return "\n".join(text)


def main() -> None:
    shown = sys.argv[1:2] == ["--print"]
    results = [json.loads(Path(name).read_text()) for name in sys.argv[1 + shown :]]
    if shown:
        print(tables(results))
        return
    readme = Path(__file__).parent / "README.md"
    text = readme.read_text()
    begin, end = (GPU_BEGIN, GPU_END) if "gpu" in results[0]["machine_info"] else (BEGIN, END)
    first, rest = text.split(begin)
    tail = rest.split(end)[1]
    readme.write_text(f"{first}{begin}\n\n{tables(results)}\n{end}{tail}")


if __name__ == "__main__":
    main()
