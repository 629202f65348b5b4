"""From the nets to numbers: inputs in batches, autocorrelations, descramblers, and what is measured in each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import brockett as bk
from brockett._demo import measure, nets
from brockett._demo.signals import BAND, DEMO, generator

Float64 = npt.NDArray[np.float64]

#: Samples propagated at once: 4096 x 256 float32 is 4 MB, so the batch of every layer stays within the cache of a core.
BATCH = 4096


@dataclass(frozen=True)
class Settings:
    """What the user may choose. Results depend on ``samples``, ``seed`` and ``rotations`` only."""

    samples: int = 100_000
    seed: int = 0
    rotations: int = 5


@dataclass(frozen=True)
class LayerStudy:
    """One layer of one net, the descrambler found for it and the nulls it is read against.

    Weight matrices are (n_outputs, n_inputs) float64. ``twin_*`` belong to the untrained twin.
    """

    index: int
    weight: Float64
    descrambled: Float64
    twin_weight: Float64
    twin_descrambled: Float64
    rank: int
    silent: int  # inputs that were zero in every sample
    identity_cost: float
    optimum: float
    cost: float
    isotropic_cost: float  # of the P that W alone gives (R = I), on the real inputs
    sigma: Float64  # root mean square pre-activations along the principal directions, descending
    gauge_conditioning: float
    structure_before: float
    structure_after: float
    structure_rotated: float
    structure_isotropic: float  # of P W with the P that W alone gives
    structure_twin_before: float
    structure_twin_after: float
    left: Float64  # leading left singular vectors of W, in columns
    left_descrambled: Float64  # the same of P W
    right: Float64  # leading right singular vectors, in columns: the same for W and P W
    singular_values: Float64
    twin_singular_values: Float64

    @property
    def shape(self) -> str:
        return f"{self.weight.shape[0]}×{self.weight.shape[1]}"

    @property
    def first_share(self) -> float:
        """Share of the pre-activation energy in its first principal direction."""
        total = float((self.sigma**2).sum())
        return float(self.sigma[0] ** 2 / total) if total else 0.0


@dataclass(frozen=True)
class NetStudy:
    """A net and the studies of its layers."""

    net: nets.Net
    layers: tuple[LayerStudy, ...]

    @property
    def title(self) -> str:
        return self.net.architecture.task.title

    @property
    def name(self) -> str:
        return self.net.architecture.name


#: Called after each batch with the number of samples done so far.
Progress = Callable[[int], None]


def accumulate(
    trained: nets.Net, twin: nets.Net, settings: Settings, progress: Progress
) -> tuple[list[bk.Autocorrelation], list[bk.Autocorrelation]]:
    """Propagate the demo's inputs through a net and its twin and accumulate the input autocorrelation of each layer.

    The first layer of both sees the same inputs, so its accumulator is shared.
    """
    widths = trained.architecture.widths[:-1]
    real = [bk.Autocorrelation(n) for n in widths]
    null = [real[0]] + [bk.Autocorrelation(n) for n in widths[1:]]
    task = trained.architecture.task
    for start in range(0, settings.samples, BATCH):
        count = min(BATCH, settings.samples - start)
        x, _ = task.sample(generator(settings.seed, DEMO, start // BATCH), count)
        for net, accumulators, first in ((trained, real, 0), (twin, null, 1)):
            for i, layer_input in enumerate(net.hidden(x)):
                if i >= first:
                    accumulators[i].update(layer_input)
        progress(start + count)
    return real, null


def study_layer(
    index: int,
    weight: Float64,
    source: bk.Autocorrelation,
    twin_weight: Float64,
    twin_source: bk.Autocorrelation,
    settings: Settings,
) -> LayerStudy:
    """Descramble one layer and its twin and measure both. The bias is left out, as in the papers."""
    found = bk.descramble(weight, autocorrelation=source)
    twin = bk.descramble(twin_weight, autocorrelation=twin_source)
    alone = bk.descramble(weight)
    # They are None for permutations only.
    assert found.optimum is not None
    assert found.gauge_conditioning is not None
    moments = np.asarray(source.matrix())
    after, twin_after = np.asarray(found.weights), np.asarray(twin.weights)
    decomposition, rotated = bk.svd(weight, method="exact"), bk.svd(after, method="exact")
    # A seed of its own for each layer, or all layers of one height would meet the same rotations.
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([settings.seed, 99, index, *weight.shape])))
    keep = min(4, *weight.shape)
    return LayerStudy(
        index=index,
        weight=weight,
        descrambled=after,
        twin_weight=twin_weight,
        twin_descrambled=twin_after,
        rank=int(found.rank),
        silent=int(np.sum(np.diag(moments) == 0.0)),
        identity_cost=float(found.identity_cost),
        optimum=found.optimum,
        cost=float(found.cost),
        isotropic_cost=bk.brockett_cost(alone.P, weight @ moments @ weight.T).value,
        sigma=np.asarray(found.sigma, dtype=np.float64),
        gauge_conditioning=found.gauge_conditioning,
        structure_before=measure.structure(weight),
        structure_after=measure.structure(after),
        structure_rotated=measure.rotated_structure(weight, settings.rotations, rng),
        structure_isotropic=measure.structure(alone.weights),
        structure_twin_before=measure.structure(twin_weight),
        structure_twin_after=measure.structure(twin_after),
        left=np.asarray(decomposition.U)[:, :keep],
        left_descrambled=np.asarray(rotated.U)[:, :keep],
        right=np.asarray(decomposition.Vt)[:keep].T,
        singular_values=np.asarray(decomposition.s),
        twin_singular_values=np.asarray(bk.singular_values(twin_weight)),
    )


def study(name: str, settings: Settings, progress: Progress) -> NetStudy:
    """Study one net: accumulate over all samples, then descramble every layer."""
    trained, twin = nets.trained(name), nets.untrained(name)
    real, null = accumulate(trained, twin, settings, progress)
    layers = []
    for i, (layer, twin_layer) in enumerate(zip(trained.layers, twin.layers, strict=True)):
        # float64, so that the cost reached shows the method and not the rounding of P.
        weight, twin_weight = layer.weight.astype(np.float64), twin_layer.weight.astype(np.float64)
        layers.append(study_layer(i, weight, real[i], twin_weight, null[i], settings))
    return NetStudy(trained, tuple(layers))


def names() -> list[str]:
    """Names of the nets, in the order of the page."""
    return list(nets.ARCHITECTURES)


def title(name: str) -> str:
    """What people call the net."""
    return nets.ARCHITECTURES[name].task.title


# ----------------------------------------------------------------------------------------- effects of particular nets
@dataclass(frozen=True)
class BandStudy:
    """The band-pass net's own effects. Energies per output frequency 0..128 of the first layer."""

    in_band: Float64  # of P W1
    in_band_raw: Float64  # of W1
    in_band_twin: Float64  # of the twin's P W1
    sigma_ratio: float  # sigma_81 / sigma_82, counted from 0: 82 real modes make up the band
    second_layer: Float64  # |F W2 F^H|
    second_layer_diagonal: Float64  # |F W2 P^T F^H|, P of maximum diagonality
    off_diagonal_raw: float
    off_diagonal: float
    off_diagonal_twin_raw: float
    off_diagonal_twin: float
    centre_correlation: float  # Spearman correlation of output frequency and centre of its input frequencies, 0..40


def maximally_diagonal(weight: Float64) -> Float64:
    """Return W P with the orthogonal P that makes its trace largest: the inputs rotated, not the outputs."""
    turned: Float64 = np.asarray(bk.diagonalize(weight.T).weights).T
    return turned


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Rank correlation of two samples without ties."""
    first, second = (np.argsort(np.argsort(np.asarray(v))).astype(np.float64) for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def study_band(result: NetStudy) -> BandStudy:
    """Measure the joint (output, input) quantities: they change with P, unlike the spectrum along the inputs alone."""
    first, second = result.layers
    inside = (BAND[1] - BAND[0]) + 1
    pairs = measure.frequency_pairs(first.descrambled)[:inside]
    centre = pairs @ np.arange(pairs.shape[1]) / pairs.sum(axis=1)
    raw, twin_raw = measure.fourier_image(second.weight), measure.fourier_image(second.twin_weight)
    turned, twin_turned = (measure.fourier_image(maximally_diagonal(w)) for w in (second.weight, second.twin_weight))
    return BandStudy(
        in_band=measure.in_band_energy(first.descrambled, BAND),
        in_band_raw=measure.in_band_energy(first.weight, BAND),
        in_band_twin=measure.in_band_energy(first.twin_descrambled, BAND),
        sigma_ratio=float(first.sigma[2 * inside - 1] / first.sigma[2 * inside]),
        second_layer=np.abs(raw),
        second_layer_diagonal=np.abs(turned),
        off_diagonal_raw=measure.off_diagonal_energy(raw),
        off_diagonal=measure.off_diagonal_energy(turned),
        off_diagonal_twin_raw=measure.off_diagonal_energy(twin_raw),
        off_diagonal_twin=measure.off_diagonal_energy(twin_turned),
        centre_correlation=spearman(np.arange(inside), centre),
    )


@dataclass(frozen=True)
class DipolarStudy:
    """Left singular vectors of the dipolar net's second layer against polynomials, and those of its twin."""

    smooth: Float64  # energy of the first six in polynomials of degree 12 at most
    smooth_twin: Float64
    one_to_one: Float64  # |correlation| of the j-th with the Chebyshev polynomial T_j, j = 0..3


def study_dipolar(result: NetStudy) -> DipolarStudy:
    second = result.layers[1]
    left = np.asarray(bk.svd(second.weight, method="exact").U)[:, :6]
    twin = np.asarray(bk.svd(second.twin_weight, method="exact").U)[:, :6]
    return DipolarStudy(
        smooth=measure.chebyshev_energy(left, 12),
        smooth_twin=measure.chebyshev_energy(twin, 12),
        one_to_one=measure.chebyshev_correlation(left[:, :4]),
    )
