"""Small pictures as inline SVG: heat maps and line plots that follow the colours of the page they stand in.

Text, axes and lines take their colours from the style sheet of `brockett.report` (so a dark page has light axes); the
cells of a heat map are a palette PNG as a data URI. Needs NumPy only.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

# Geometry of every panel, in SVG units (close to CSS pixels at three panels a row on a page of 1120 px).
_LEFT, _TOP, _BOX, _RIGHT, _BOTTOM = 52, 8, 264, 62, 40
_WIDTH, _HEIGHT = _LEFT + _BOX + _RIGHT, _TOP + _BOX + _BOTTOM


# ------------------------------------------------------------------------------------------------------------- colours
def _srgb(lab: Float64) -> Float64:
    """OKLab (n, 3) to gamma-encoded sRGB (n, 3), not clipped. Matrices: Ottosson 2020."""
    to_lms = np.array(
        [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (lab @ to_lms.T) ** 3 @ to_rgb.T
    bright = 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, bright))


def _lab(points: Sequence[tuple[float, float, float]]) -> Float64:
    """(lightness, chroma, hue in degrees) to OKLab."""
    lch = np.array(points)
    hue = np.deg2rad(lch[:, 2])
    return np.column_stack([lch[:, 0], lch[:, 1] * np.cos(hue), lch[:, 1] * np.sin(hue)])


def _uniform_path(points: Float64, n: int) -> Float64:
    """n points at equal OKLab distances along a polyline: equal steps of the data look like equal steps of colour."""
    t = np.linspace(0.0, len(points) - 1.0, 4096)
    path = np.column_stack([np.interp(t, np.arange(len(points)), points[:, i]) for i in range(3)])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    return np.column_stack([np.interp(np.linspace(0.0, length[-1], n), length, path[:, i]) for i in range(3)])


@cache
def palette(kind: str) -> UInt8:
    """Return 255 colours, (255, 3) uint8.

    "diverging": blue, near white at index 127, red. "sequential": dark to bright.

    Both are perceptually uniform by construction: equal distances in OKLab between neighbours.
    """
    if kind == "diverging":
        low = _uniform_path(_lab([(0.36, 0.13, 262.0), (0.62, 0.125, 250.0), (0.975, 0.0, 250.0)]), 128)
        high = _uniform_path(_lab([(0.975, 0.0, 40.0), (0.66, 0.145, 45.0), (0.36, 0.13, 28.0)]), 128)
        lab = np.vstack([low, high[1:]])
    else:
        lab = _uniform_path(
            _lab(
                [(0.16, 0.045, 285.0), (0.34, 0.13, 300.0), (0.54, 0.18, 0.0), (0.74, 0.16, 50.0), (0.965, 0.06, 100.0)]
            ),
            255,
        )
    return np.rint(255.0 * np.clip(_srgb(lab), 0.0, 1.0)).astype(np.uint8)


def png(indices: UInt8, colours: UInt8) -> bytes:
    """Encode an image (rows, columns) of palette indices: 8 bits a cell, a third of what true colour takes."""
    height, width = indices.shape
    raw = np.zeros((height, width + 1), dtype=np.uint8)  # each row starts with filter type 0
    raw[:, 1:] = indices

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"PLTE", colours.tobytes()) + chunk(b"IDAT", zlib.compress(raw.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def _data_uri(values: Float64, low: float, high: float, kind: str) -> str:
    scaled = (np.clip(values, low, high) - low) / (high - low if high > low else 1.0)
    image = png(np.rint(254.0 * scaled).astype(np.uint8), palette(kind))
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


# --------------------------------------------------------------------------------------------------------------- axes
@dataclass(frozen=True)
class Axis:
    """One axis: its label, the values at its two ends and the ticks (values; texts by default their shortest form)."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...] | None = None

    def place(self, value: float) -> float:
        """Position of a value, 0 at the low end and 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def labelled(self) -> list[tuple[float, str]]:
        texts = self.texts or tuple(_short(t) for t in self.ticks)
        return list(zip(self.ticks, texts, strict=True))


def _short(value: float) -> str:
    text = f"{value:.3g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    return text.replace("-", "−")


def counting(label: str, n: int) -> Axis:
    """Axis over n indices 0..n-1, cells centred on whole numbers, ticks at both ends and in the middle."""
    ticks = (0.0, n - 1.0) if n < 8 else (0.0, float(n // 2), n - 1.0)
    return Axis(label, -0.5, n - 0.5, ticks)


def frequencies(label: str, n: int) -> Axis:
    """Axis over the n shifted DFT frequencies -(n//2)..(n-1)//2."""
    low, high = -(n // 2), (n - 1) // 2
    ticks = (0.0,) if n < 4 else (low / 2, 0.0, -low / 2) if low % 2 == 0 else (float(low), 0.0, float(high))
    return Axis(label, low - 0.5, high + 0.5, ticks)


def linear(label: str, low: float, high: float) -> Axis:
    """Axis with ticks at round numbers (1, 2 or 5 times a power of ten), about five of them."""
    if not high > low:
        low, high = low - 0.5, low + 0.5
    raw = (high - low) / 5.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1.0, 2.0, 5.0, 10.0) if power * m >= raw * 0.9)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return Axis(label, low, high, tuple(round(step * i, 12) for i in range(first, last + 1)))


def decades(label: str, low: float, high: float) -> Axis:
    """Axis in log10 of the values, whole decades at the ticks."""
    a, b = math.floor(math.log10(low)), math.ceil(math.log10(high))
    b = max(b, a + 1)
    step = max(1, math.ceil((b - a) / 5))
    ticks = tuple(float(k) for k in range(a, b + 1, step))
    return Axis(label, float(a), float(b), ticks, tuple(power_of_ten(int(k)) for k in ticks))


def power_of_ten(k: int) -> str:
    return "10" + str(k).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _frame(x: Axis, y: Axis, y_down: bool, grid: bool) -> str:
    """Ticks, labels and frame of one plot box; y runs downwards for matrices."""
    parts = []
    for value, text in x.labelled():
        at = _LEFT + _BOX * x.place(value)
        if grid:
            parts.append(f'<path class="g" d="M{at:.1f} {_TOP}V{_TOP + _BOX}"/>')
        parts.append(
            f'<path class="a" d="M{at:.1f} {_TOP + _BOX}v4"/>'
            f'<text x="{at:.1f}" y="{_TOP + _BOX + 17}" text-anchor="middle">{text}</text>'
        )
    for value, text in y.labelled():
        at = _TOP + _BOX * (y.place(value) if y_down else 1.0 - y.place(value))
        if grid:
            parts.append(f'<path class="g" d="M{_LEFT} {at:.1f}H{_LEFT + _BOX}"/>')
        parts.append(
            f'<path class="a" d="M{_LEFT} {at:.1f}h-4"/>'
            f'<text x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
        )
    middle_x, middle_y = _LEFT + _BOX / 2, _TOP + _BOX / 2
    parts.append(f'<rect class="a" x="{_LEFT}" y="{_TOP}" width="{_BOX}" height="{_BOX}"/>')
    parts.append(f'<text class="l" x="{middle_x}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text class="l" transform="translate(12 {middle_y})rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _svg(body: str, title: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">{body}</svg>'


def _colour_bar(low: float, high: float, kind: str, ticks: Sequence[float], unit: str) -> str:
    x = _LEFT + _BOX + 10
    ramp = _data_uri(np.linspace(high, low, 255)[:, None], low, high, kind)
    parts = [f'<image x="{x}" y="{_TOP}" width="8" height="{_BOX}" preserveAspectRatio="none" href="{ramp}"/>']
    parts.append(f'<rect class="a" x="{x}" y="{_TOP}" width="8" height="{_BOX}"/>')
    for tick in ticks:
        at = _TOP + _BOX * (high - tick) / (high - low)
        anchor = min(max(at + 4, _TOP + 9), _TOP + _BOX)
        parts.append(f'<text x="{x + 11}" y="{anchor:.1f}">{_short(tick)}</text>')
    if unit:
        parts.append(f'<text x="{x + 11}" y="{_TOP + _BOX + 17}">{escape(unit)}</text>')
    return "".join(parts)


# ------------------------------------------------------------------------------------------------------------- panels
def heat_map(
    values: npt.ArrayLike,
    x: Axis,
    y: Axis,
    *,
    title: str,
    limits: tuple[float, float],
    kind: str,
    bar: Sequence[float],
    unit: str = "",
    y_down: bool = True,
) -> str:
    """Picture of a matrix stretched to a square, row 0 on top (below with ``y_down=False``).

    Values beyond ``limits`` take the end colours; ``bar`` names the ticks of the colour bar.
    """
    v = np.asarray(values, dtype=np.float64)[:: 1 if y_down else -1]
    box = f'x="{_LEFT}" y="{_TOP}" width="{_BOX}" height="{_BOX}" preserveAspectRatio="none"'
    image = f'<image {box} href="{_data_uri(v, *limits, kind)}"/>'
    return _svg(image + _frame(x, y, y_down, False) + _colour_bar(*limits, kind, bar, unit), title)


def weights(matrix: npt.ArrayLike, *, title: str, rows: str = "output j", columns: str = "input i") -> str:
    """Picture of a weight matrix, colours centred at 0, full colour at the 99.5th percentile of the magnitudes."""
    w = np.asarray(matrix, dtype=np.float64)
    top = float(np.quantile(np.abs(w), 0.995)) or 1.0
    top = float(f"{top:.2g}")
    x, y = counting(columns, w.shape[1]), counting(rows, w.shape[0])
    return heat_map(w, x, y, title=title, limits=(-top, top), kind="diverging", bar=(-top, 0.0, top))


#: Range of every DFT picture, dB relative to the mean cell: one colour is one concentration on the whole page.
DFT_RANGE = (-10.0, 30.0)


def dft(matrix: npt.ArrayLike, *, title: str, rows: str = "output frequency", columns: str = "input frequency") -> str:
    """Picture of |DFT2|^2 of a real matrix in dB relative to its mean cell, frequency 0 in the middle."""
    w = np.asarray(matrix, dtype=np.float64)
    return magnitude(np.fft.fftshift(np.fft.fft2(w)), title=title, rows=rows, columns=columns)


def magnitude(matrix: npt.ArrayLike, *, title: str, rows: str, columns: str) -> str:
    """Picture of the squared magnitudes of a matrix over shifted frequencies, dB relative to the mean cell."""
    energy = np.abs(np.asarray(matrix)) ** 2
    mean = float(energy.mean()) or 1.0
    level = 10.0 * np.log10(np.maximum(energy / mean, 1e-12))
    x, y = frequencies(columns, energy.shape[1]), frequencies(rows, energy.shape[0])
    return heat_map(
        level,
        x,
        y,
        title=title,
        limits=DFT_RANGE,
        kind="sequential",
        bar=(-10.0, 0.0, 10.0, 20.0, 30.0),
        unit="dB",
        y_down=False,
    )


@dataclass(frozen=True)
class Line:
    """One curve: values, its name in the legend, its series number (colour 1..4), dashed for a null."""

    values: Float64
    name: str
    colour: int
    dashed: bool = False


def lines(curves: Sequence[Line], x: Axis, y: Axis, *, title: str, start: float = 0.0) -> str:
    """Line plot. On a :func:`decades` axis give log10 of the values; non-finite values leave a gap."""
    parts = [_frame(x, y, False, True)]
    for curve in curves:
        path, pen = [], "M"
        for i, value in enumerate(curve.values):
            if not math.isfinite(value):
                pen = "M"
                continue
            px = _LEFT + _BOX * x.place(start + i)
            py = _TOP + _BOX * (1.0 - min(max(y.place(float(value)), 0.0), 1.0))
            path.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L"
        dash = ' stroke-dasharray="5 3"' if curve.dashed else ""
        parts.append(f'<path class="c s{curve.colour}"{dash} d="{"".join(path)}"/>')
    legend = "".join(
        f'<span class="key"><i class="s{c.colour}{" dash" if c.dashed else ""}"></i>{escape(c.name)}</span>'
        for c in curves
    )
    return _svg("".join(parts), title) + f'<div class="legend">{legend}</div>'
