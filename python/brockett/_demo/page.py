"""The page of ``brockett demo``: what the papers show, each picture beside the null it has to be read against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from brockett import _panels
from brockett._demo.run import BandStudy, DipolarStudy, LayerStudy, NetStudy, Settings
from brockett._demo.signals import BAND
from brockett._panels import Line
from brockett.report import Page, Panel

_PAPERS = {
    "pnas": '<a href="https://doi.org/10.1073/pnas.2016917118">Amey, Keeley, Choudhury, Kuprov, PNAS 2021</a>',
    "sule": '<a href="https://arxiv.org/abs/2301.07820">Sule, Spencer, Czaja, arXiv 2301.07820</a>',
}

#: Layers with fewer outputs have no spectrum along the outputs worth a picture.
_FEWEST_OUTPUTS = 8

COLUMNS = ("layer", "shape", "rank", "cost of I", "optimum", "reached", "W", "P W", "Q W", "untrained")


def row(layer: LayerStudy) -> list[str]:
    """One line of the summary table, on the page and in the terminal alike."""
    return [
        str(layer.index + 1),
        layer.shape,
        str(layer.rank),
        f"{layer.identity_cost:.3g}",
        f"{layer.optimum:.4g}",
        f"{layer.cost:.4g}",
        f"{layer.structure_before:.3f}",
        f"{layer.structure_after:.3f}",
        f"{layer.structure_rotated:.3f}",
        f"{layer.structure_twin_after:.3f}",
    ]


def heading(study: NetStudy) -> str:
    """Name, shape and test error of a net, for tables."""
    error = study.net.record.get("test_error")
    known = f", test error {error:.2g}" if isinstance(error, float) else ""
    return f"{study.title}: {study.net.architecture.shape} {study.net.architecture.activation}{known}"


def _typeset(cell: str) -> str:
    """Write 5.29e+08 as people do."""
    mantissa, exponent, power = cell.partition("e+")
    return f"{mantissa}×{_panels.power_of_ten(int(power))}" if exponent else cell


def _factor(x: float) -> str:
    return f"{x:.2f}" if x < 10.0 else f"{x:,.0f}"


def build(studies: Sequence[NetStudy], band: BandStudy, dipolar: DipolarStudy, settings: Settings) -> Page:
    """Compose the page."""
    page = Page(
        "Descrambled layers of three trained networks",
        f"Nine layers, {settings.samples:,} inputs per net, each picture beside its null: the same net untrained, "
        "and the same weights under random rotations.",
    )
    _summary(page, studies)
    _how_to_read(page)
    by_name = {s.name: s for s in studies}
    _relaxometry(page, by_name["relaxometry"])
    _dipolar(page, by_name["dipolar"], dipolar)
    _band(page, by_name["bandpass"], band)
    _verdict(page, by_name, band, dipolar)
    return page


def _summary(page: Page, studies: Sequence[NetStudy]) -> None:
    page.section("All layers")
    columns = (*COLUMNS[:6], "structure: W", *COLUMNS[7:])
    page.table(columns, [(heading(s), [[_typeset(c) for c in row(layer)] for layer in s.layers]) for s in studies])
    page.text(
        "<b>Cost</b> is η(P) = ‖D P Y‖²/N, the roughness of the pre-activations Y = W X along the outputs: of P = I, "
        "its exact minimum "
        "Σ λ<sub>i</sub>σ<sub>i</sub>², and the value evaluated for the P that was returned. "
        "<b>W, P W, Q W, untrained</b> is <i>structure</i>: the share of the 2-D DFT energy that lies in the "
        "brightest 1 % of its cells, before "
        "descrambling, after it, under random rotations Q (the mean of several), and after descrambling the untrained "
        "twin. "
        "White noise has 0.056 in a large matrix. <b>Rank</b> counts the directions in which pre-activations vary "
        "above rounding."
    )


def _how_to_read(page: Page) -> None:
    page.section("How to read the pictures")
    page.text(
        "Which neuron of a hidden layer learns what is an accident of where training started, so the rows of its "
        "weights come in no order. "
        "The <i>descrambler</i> is the orthogonal P that makes the pre-activations P W x of real inputs as smooth as "
        "possible from neuron to neuron "
        f"({_PAPERS['pnas']}); it has the closed form P = T Uᵀ ({_PAPERS['sule']}), with U the principal directions "
        "of W X and T the Fourier modes. "
        "P W is then looked at as a picture. Through the activation that follows, the rotation does not pass: P W "
        "explains a layer and does not replace it."
    )
    page.definitions(
        [
            (
                "Weights, raw and descrambled",
                "Rows are outputs, columns inputs, white is zero; each picture has its own scale, for P only moves "
                "energy about. "
                "A physical input axis (time, say) is in order from the start; the outputs of a hidden layer are not.",
            ),
            (
                "2-D DFT",
                "Squared magnitude in dB relative to the mean cell, one scale on the whole page: 20 dB is a hundred "
                "times the mean. A horizontal "
                "axis of input frequencies, a vertical one of output frequencies. Bright spots off the axes are "
                "modulated waves: an input frequency tied to an output frequency.",
            ),
            (
                "Singular values and vectors",
                "Singular values of P W are those of W, and so are the right vectors (inputs): no P changes them, and "
                "they need no descrambling to be seen. "
                "Left vectors (outputs) are multiplied by P. <b>That they become smooth is no finding</b>: P was "
                "built to make them so.",
            ),
            (
                "The nulls",
                "P is fitted, so it produces order in any matrix. What a trained layer shows beyond its untrained "
                "twin is what training did; "
                "what it shows beyond Q W is what P did.",
            ),
        ]
    )


# ------------------------------------------------------------------------------------------------------------ one layer
def _vector_axis(vectors: Sequence[np.ndarray], label: str) -> _panels.Axis:
    top = max(float(np.abs(v).max()) for v in vectors)
    return _panels.linear(label, -1.05 * top, 1.05 * top)


def _spectrum_panel(layer: LayerStudy) -> Panel:
    curves = []
    rounding = 1e-8  # relative: float32 weights say nothing below it
    tops = []
    for values, name, colour, dashed in (
        (layer.singular_values, "W", 1, False),
        (layer.twin_singular_values, "untrained W", 1, True),
        (layer.sigma, "pre-activations", 2, False),
    ):
        top = float(values[0])
        tops.append(top)
        with np.errstate(divide="ignore", invalid="ignore"):
            curve = np.where(values > rounding * top, np.log10(np.maximum(values, 1e-300)), np.nan)
        curves.append(Line(curve, name, colour, dashed))
    floor = min(float(np.nanmin(c.values)) for c in curves)
    y = _panels.decades("σ", 10.0 ** max(floor, math.log10(max(tops)) - 8.0), max(tops))
    n = max(len(c.values) for c in curves)
    ticks = (1.0, float(n // 2), float(n)) if n > 3 else tuple(float(i + 1) for i in range(n))
    picture = _panels.lines(curves, _panels.Axis("number", 1.0, float(n), ticks), y, title="Singular values", start=1.0)
    return Panel(
        "Singular values",
        picture,
        "Of the weights and, in root mean square, of the pre-activations of the demo's inputs. "
        f"The first direction of the pre-activations holds {100 * layer.first_share:.3g} % of their energy (the mean "
        "is left in).",
    )


def _layer_panels(layer: LayerStudy, inputs: str, outputs: str) -> list[Panel]:
    name = f"layer {layer.index + 1}"
    m = layer.weight.shape[1]
    right = [layer.right[:, k] for k in range(min(3, layer.right.shape[1]))]
    left = [layer.left_descrambled[:, k] for k in range(min(3, layer.left_descrambled.shape[1]))]
    rawest = layer.left[:, 0]
    n = layer.weight.shape[0]
    return [
        Panel("Raw weights W", _panels.weights(layer.weight, title=f"{name}: W", rows=outputs, columns=inputs)),
        Panel(
            "Descrambled P W",
            _panels.weights(layer.descrambled, title=f"{name}: P W", rows="output after P", columns=inputs),
        ),
        Panel(
            "Null: untrained twin, descrambled",
            _panels.weights(
                layer.twin_descrambled, title=f"{name}: untrained P W", rows="output after P", columns=inputs
            ),
        ),
        Panel(
            "DFT of W", _panels.dft(layer.weight, title=f"{name}: DFT of W"), f"Structure {layer.structure_before:.3f}."
        ),
        Panel(
            "DFT of P W",
            _panels.dft(layer.descrambled, title=f"{name}: DFT of P W"),
            f"Structure {layer.structure_after:.3f}; under random rotations instead of P "
            f"{layer.structure_rotated:.3f}.",
        ),
        Panel(
            "DFT of the descrambled twin",
            _panels.dft(layer.twin_descrambled, title=f"{name}: DFT of the untrained P W"),
            f"Structure {layer.structure_twin_after:.3f}, before descrambling {layer.structure_twin_before:.3f}.",
        ),
        _spectrum_panel(layer),
        Panel(
            "Right singular vectors (inputs)",
            _panels.lines(
                [Line(v, f"v{k + 1}", k + 1) for k, v in enumerate(right)],
                _panels.counting(inputs, m),
                _vector_axis(right, "entry"),
                title=f"{name}: right singular vectors",
            ),
            "The input patterns the layer weighs most. P plays no part in them.",
        ),
        Panel(
            "Left singular vectors (outputs)",
            _panels.lines(
                [Line(rawest, "u1 of W", 4, True)] + [Line(v, f"u{k + 1}", k + 1) for k, v in enumerate(left)],
                _panels.counting("output", n),
                _vector_axis([rawest, *left], "entry"),
                title=f"{name}: left singular vectors",
            ),
            "Of P W; dashed, of W. That P makes them smoother is how P was made, not a result.",
        ),
    ]


def _layers(page: Page, study: NetStudy, axes: Sequence[tuple[str, str]], words: Sequence[str]) -> None:
    for layer, (inputs, outputs), text in zip(study.layers, axes, words, strict=True):
        page.subsection(
            f"{study.title}, layer {layer.index + 1}: {layer.weight.shape[1]} inputs to {layer.weight.shape[0]} outputs"
        )
        page.text(text)
        if layer.weight.shape[0] >= _FEWEST_OUTPUTS:
            page.panels(_layer_panels(layer, inputs, outputs))


def _training(study: NetStudy) -> str:
    record = study.net.record
    return (
        f"Its test error (mean squared error over the variance of the targets) is {record['test_error']:.2g}, "
        f"that of its untrained twin {record['untrained_test_error']:.2f}."
    )


def _change(layer: LayerStudy) -> str:
    return (
        f"Structure {layer.structure_before:.3f} → {layer.structure_after:.3f}; "
        f"untrained {layer.structure_twin_before:.3f} → {layer.structure_twin_after:.3f}; random rotations "
        f"{layer.structure_rotated:.3f}."
    )


# -------------------------------------------------------------------------------------------------- the three nets
def _relaxometry(page: Page, study: NetStudy) -> None:
    page.section(study.title)
    page.text(
        "Inputs are noisy decays c e<sup>−t/T₁</sup> + (1−c) e<sup>−t/T₂</sup> at 64 echo times, 5 to 320 ms; the net "
        "answers with the logarithms of both decay times "
        f"(64-32-256-256-32-2, ReLU). {_training(study)} A smooth input axis in time; what comes after has no order "
        "of its own."
    )
    first, second, third, fourth, last = study.layers
    hidden = ("input unit", "output unit")
    _layers(
        page,
        study,
        [("echo time index", "output unit"), hidden, hidden, hidden, ("input unit", "target")],
        [
            f"The layer that meets the decays. {_change(first)} The right vectors, smooth along the echo times, show "
            "without any P that training made the layer read slow trends: "
            "the twin's are noise.",
            f"{_change(second)} Mind the null: the untrained layer gains as well. There are 256 outputs and only "
            f"{second.weight.shape[1]} inputs, "
            f"{second.silent} of which never fire on these data, so P gathers all energy in a few output frequencies "
            "whatever the weights are.",
            f"{_change(third)} The clearest effect of the net: training concentrated the weights on few directions. "
            f"Rows beyond the numerical rank {third.rank} are left as the gauge puts them.",
            _change(fourth),
            "Two outputs: the descrambler is a reflection or nothing, and there is no picture to look at. "
            f"{_change(last)}",
        ],
    )


def _dipolar(page: Page, study: NetStudy, effects: DipolarStudy) -> None:
    page.section(study.title)
    page.text(
        "Inputs are dipolar traces V(t) with background and noise at 256 times up to 3 µs, answers the distance "
        "distribution p(r) on 256 points from 1.5 to 6 nm "
        "(256-80-256, tanh): an inverse problem known from DEER spectroscopy, where descrambling was invented. "
        f"{_training(study)}"
    )
    first, second = study.layers
    _layers(
        page,
        study,
        [("time index", "output unit"), ("input unit", "distance index")],
        [
            f"The layer that meets the traces. {_change(first)} The descrambled rows are oscillations in time: the "
            "layer has learnt frequencies, that is distances, and P put like beside like. "
            "With P from the weights alone (R = I) the cost on the real traces is "
            f"{_factor(first.isotropic_cost / first.optimum)} times the optimum, although that picture looks much the "
            f"same (structure {first.structure_isotropic:.3f}).",
            f"{_change(second)} Here the outputs are distances: in order already, so most of the structure is there "
            "before P, random rotations destroy it, and P has little to add. "
            f"Polynomials of degree 12 at most hold at least {100 * effects.smooth.min():.0f} % of the energy of each "
            "of the first six left singular vectors "
            f"(untrained: at most {100 * effects.smooth_twin.max():.0f} %). No P enters that statement.",
        ],
    )


def _band(page: Page, study: NetStudy, effects: BandStudy) -> None:
    page.section(study.title)
    low, high = BAND
    page.text(
        f"Inputs are 256 points of white noise, answers the same noise with only the frequencies {low} to {high} left "
        f"(256-256-256, tanh). {_training(study)} The problem whose answer is known: 41 frequencies, 82 real modes."
    )
    first, second = study.layers
    n_in = high - low + 1
    inside = effects.in_band[:n_in]
    outside = effects.in_band[n_in + 1 :]
    x = _panels.linear("output frequency", 0.0, float(len(effects.in_band) - 1))
    y = _panels.linear("share of energy in the band", 0.0, 1.05)
    energy = Panel(
        f"Energy at input frequencies {low}–{high}",
        _panels.lines(
            [
                Line(effects.in_band, "P W1", 1),
                Line(effects.in_band_raw, "W1", 2),
                Line(effects.in_band_twin, "untrained P W1", 4, True),
            ],
            x,
            y,
            title="In-band energy per output frequency",
        ),
        "By output frequency. Raw, every output frequency carries the band, for W1 is a band-pass already; "
        "descrambled, the first 41 carry all of it and the rest what was thrown away.",
    )
    second_panels = [
        Panel(
            "Layer 2 in Fourier space",
            _panels.magnitude(
                np.fft.fftshift(effects.second_layer),
                title="|F W2 F^H|",
                rows="output frequency",
                columns="input frequency",
            ),
            f"|F W2 Fᴴ|², {100 * effects.off_diagonal_raw:.1f} % of the energy off the diagonal.",
        ),
        Panel(
            "The same, made most diagonal",
            _panels.magnitude(
                np.fft.fftshift(effects.second_layer_diagonal),
                title="|F W2 P F^H|",
                rows="output frequency",
                columns="input frequency",
            ),
            f"|F W2 P Fᴴ|² with the orthogonal P of the largest trace: {100 * effects.off_diagonal:.1f} % off the "
            "diagonal "
            f"(untrained {100 * effects.off_diagonal_twin_raw:.1f} → {100 * effects.off_diagonal_twin:.1f} %).",
        ),
    ]
    page.panels([energy, *second_panels])
    page.text(
        f"<b>Output frequencies 0 to {n_in - 1} of P W1 have {inside.mean():.2f} of their energy inside the band, "
        f"those from {n_in + 1} on {outside.mean():.4f}</b> "
        f"(untrained {effects.in_band_twin.min():.2f} to {effects.in_band_twin.max():.2f}, where a white matrix has "
        f"{n_in / 128:.2f}). "
        f"The pre-activations say where the band ends without being told: σ₈₂/σ₈₃ = {effects.sigma_ratio:.0f}. "
        f"What is left outside shrinks with the number of inputs, as a sampling error does.",
        note=True,
    )
    _layers(
        page,
        study,
        [("point in time", "output unit"), ("input unit", "point in time")],
        [
            f"{_change(first)} Descrambling doubles the structure of an untrained layer, too: of the rise, only what "
            "goes beyond the twin belongs to training. The inputs are white, so the pre-activations have the singular "
            "values of the weights.",
            f"{_change(second)} The outputs are points in time, and in order. P has nothing to add and does not; "
            "random rotations do harm.",
        ],
    )


def _verdict(page: Page, studies: dict[str, NetStudy], band: BandStudy, dipolar: DipolarStudy) -> None:
    page.section("What is real, and what is not")
    n_in = BAND[1] - BAND[0] + 1
    first = studies["dipolar"].layers[0]
    wide = studies["bandpass"].layers[0]
    worst, where = max(
        ((layer, f"{s.title.lower()}, layer {layer.index + 1}") for s in studies.values() for layer in s.layers),
        key=lambda pair: pair[0].isotropic_cost / pair[0].optimum,
    )
    page.bullets(
        [
            f"<b>Real:</b> the band-pass net's in-band energy, {band.in_band[:n_in].mean():.2f} against "
            f"{band.in_band[n_in + 1 :].mean():.4f} by output frequency.",
            "<b>Real:</b> layer 2 of the band-pass net is a circulant in disguise: off-diagonal energy "
            f"{band.off_diagonal_raw:.3f} → {band.off_diagonal:.3f} under one rotation "
            f"of its inputs; untrained {band.off_diagonal_twin_raw:.3f} → {band.off_diagonal_twin:.3f}.",
            f"<b>Real:</b> layer 1 of the dipolar net, structure {first.structure_before:.2f} → "
            f"{first.structure_after:.2f}, far beyond its nulls ({first.structure_rotated:.2f}, "
            f"{first.structure_twin_after:.2f}).",
            "<b>Real, and needs no P:</b> the smooth left singular vectors of layer 2 of the dipolar net "
            f"({dipolar.smooth.min():.2f} and up against {dipolar.smooth_twin.max():.2f} untrained).",
            "<b>Half real:</b> rising structure as such. Untrained weights rise as well "
            f"({wide.structure_twin_before:.3f} → {wide.structure_twin_after:.3f} in layer 1 of the band-pass net). "
            "Never show it without the twin.",
            "<b>Not real:</b> “the passband appears after descrambling”, shown on the spectrum along the inputs "
            "summed over the rows. That spectrum is the same for W and P W, whatever P is.",
            "<b>Not real:</b> smooth left singular vectors of P W. P makes them smooth in noise.",
            "<b>Not found here:</b> a one-to-one match of singular vectors with Chebyshev polynomials (|correlation| "
            "of the first four with T₀..T₃: "
            f"{', '.join(f'{c:.2f}' for c in dipolar.one_to_one)}), and a band centre that moves monotonically with "
            f"the output frequency (rank correlation {band.centre_correlation:.2f}).",
            "<b>Mind the source:</b> P from the weights alone is another P. On the real inputs its cost is up to "
            f"{_factor(worst.isotropic_cost / worst.optimum)} times the optimum ({where}). There its structure is "
            f"{worst.structure_isotropic:.3f}, that of the true P {worst.structure_after:.3f}: structure does "
            "not tell whether P is right.",
            "<b>P is not unique:</b> pairs of equal frequency may be rotated among themselves. Shown is the minimiser "
            "nearest to the identity; its cost does not depend on the choice, single pixels do.",
        ]
    )
