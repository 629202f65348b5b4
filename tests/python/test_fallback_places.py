"""The fallback over array-api-strict: no hidden NumPy calls, no hidden device moves, nothing without float64.

`device1` of array-api-strict behaves like a GPU: arrays on it do not convert to NumPy by themselves and do not mix with
others. The fixture `place` runs a test on NumPy, on array-api-strict, and on its device1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
import pytest
from array_api_compat import array_namespace, device

from brockett import InvalidArgument, InvalidType, NonFinite
from brockett import _fallback as fb

DEVICE1 = array_api_strict.Device("device1")
NO_FLOAT64 = array_api_strict.Device("no_float64")
FOURIER = {"kind": "fourier", "order": 2.0}


@dataclass(frozen=True)
class Place:
    """Where a test puts its arrays."""

    xp: Any
    device: Any

    def put(self, array: Any, dtype: str = "float64") -> Any:
        return self.xp.asarray(np.asarray(array), dtype=getattr(self.xp, dtype), device=self.device)

    def get(self, array: Any) -> np.ndarray:
        """A result as a NumPy array, after a look at where it is."""
        assert array_namespace(array).__name__.removeprefix("array_api_compat.") == self.xp.__name__
        assert device(array) == (self.device or "cpu")
        return (
            array
            if isinstance(array, np.ndarray)
            else np.asarray(array.to_device(array_api_strict.Device("CPU_DEVICE")))
        )

    def keywords(self) -> dict[str, Any]:
        return {"xp": self.xp, "device": self.device}


PLACES = {
    "numpy": Place(np, None),
    "strict": Place(array_api_strict, array_api_strict.Device("CPU_DEVICE")),
    "device1": Place(array_api_strict, DEVICE1),
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    # no indexing by masks and no shapes that depend on data: what JAX and Dask cannot do either
    with array_api_strict.ArrayAPIStrictFlags(boolean_indexing=False, data_dependent_shapes=False):
        yield PLACES[request.param]


def svd(A: Any, rank: int = 0, method: str = "exact", signs: str = "right", **options: Any) -> dict[str, Any]:
    o = {"tol": 1e-6, "frobenius_tol": 0.0, "seed": 0, "oversampling": 10, "iterations": 4} | options
    return fb.svd(A, rank, o["tol"], o["frobenius_tol"], method, o["seed"], o["oversampling"], o["iterations"], signs)


def descramble(W: Any, source: dict[str, Any], penalty: Any = None, **options: Any) -> dict[str, Any]:
    o = {"group": "orthogonal", "gauge": "identity", "P0": None, "rank": 0, "dtype": "float64"} | options
    return fb.descramble(
        W, source, penalty or FOURIER, o["group"], o["gauge"], o["P0"], o["rank"], 0, 8, 1000, o["dtype"]
    )


# --- one result everywhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "gram", "quick", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_svd(place: Place, method: str, dtype: str, rng: np.random.Generator) -> None:
    A = rng.standard_normal((9, 5)).astype(dtype)
    found, expected = svd(place.put(A, dtype), 4, method), svd(A, 4, method)
    assert isinstance(found["s"], np.ndarray)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found["s"], expected["s"], rtol=tolerance)
    U, Vt = place.get(found["U"]), place.get(found["Vt"])
    assert U.dtype == Vt.dtype == dtype
    np.testing.assert_allclose(U, expected["U"], atol=tolerance)
    np.testing.assert_allclose(Vt, expected["Vt"], atol=tolerance)


def test_singular_values_and_whitened(place: Place, rng: np.random.Generator) -> None:
    W, X = rng.standard_normal((4, 6)), rng.standard_normal((20, 6))
    for method in ("auto", "gram", "exact"):
        values = fb.singular_values(place.put(W), method)["values"]
        np.testing.assert_allclose(values, np.linalg.svd(W)[1], rtol=1e-12)
    R = X.T @ X / 20
    found = fb.whitened_svd(place.put(W), place.put(R), 2)
    expected = fb.whitened_svd(W, R, 2)
    np.testing.assert_allclose(place.get(found["projected"]), expected["projected"], atol=1e-12)
    np.testing.assert_allclose(place.get(found["U"]), expected["U"], atol=1e-12)


def test_batches(place: Place, rng: np.random.Generator) -> None:
    A = rng.standard_normal((3, 4, 2))
    found = fb.svd_batch(place.put(A), 0, 1e-6, 0.0, "exact", 0, 10, 4, "right")
    for one, B in zip(found, A, strict=True):
        np.testing.assert_allclose((place.get(one["U"]) * one["s"]) @ place.get(one["Vt"]), B, atol=1e-14)
    values = [one["values"] for one in fb.singular_values_batch(place.put(A), "auto")]
    np.testing.assert_allclose(values, np.linalg.svd(A)[1], rtol=1e-12)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("method", ["gram", "qr"])
def test_accumulator(place: Place, method: str, center: bool, rng: np.random.Generator) -> None:
    X = rng.standard_normal((40, 5)) + 3
    X[7] = np.nan
    w = np.arange(40.0) * (np.arange(40) != 7)
    acc = fb.Accumulator(5, center, method, "double", **place.keywords())
    acc.update(place.put(X[:30]), w[:30])
    other = fb.Accumulator.from_state(acc.state(), **place.keywords())
    rest = fb.Accumulator(5, center, method, "double", **place.keywords())
    rest.update(place.put(X[30:]), w[30:])
    other.merge(rest)
    kept = np.delete(X, 7, axis=0), np.delete(w, 7)
    expected = (
        np.cov(kept[0].T, aweights=kept[1], ddof=0) if center else (kept[0].T * kept[1]) @ kept[0] / kept[1].sum()
    )
    np.testing.assert_allclose(place.get(other.matrix()), expected, rtol=1e-12, atol=1e-13)
    assert isinstance(other.mean(), np.ndarray)
    assert all(not hasattr(value, "__array_namespace_info__") for value in other.state().values())
    if method == "qr":
        L = place.get(other.factor())
        np.testing.assert_allclose(L @ L.T, expected, rtol=1e-12, atol=1e-13)


def test_bfloat16_and_single(place: Place, rng: np.random.Generator) -> None:
    X = rng.standard_normal((10, 3)).astype(np.float32)
    bits = (X.view(np.uint32) >> 16).astype(np.uint16)
    widened = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    acc = fb.Accumulator(3, False, "gram", "double", **place.keywords())
    acc.update(place.put(bits, "uint16"), None, True)
    np.testing.assert_allclose(place.get(acc.matrix()), widened.T @ widened / 10, rtol=1e-14)
    acc = fb.Accumulator(3, False, "gram", "single", **place.keywords())
    acc.update(place.put(X, "float32"))
    np.testing.assert_allclose(place.get(acc.matrix()), X.T @ X / 10, rtol=1e-5, atol=1e-6)


SOURCES: dict[str, Callable[[Place, Any, np.random.Generator], dict[str, Any]]] = {
    "preactivations": lambda p, W, r: {"Y": p.put(r.standard_normal((50, 6)) @ W.T), "center": False},
    "inputs": lambda p, W, r: {"X": p.put(r.standard_normal((50, 6))), "bias": np.ones(6), "center": True},
    "matrix": lambda p, W, r: {"R": p.put(np.cov(r.standard_normal((6, 50)))), "n_samples": 50},
    "isotropic": lambda p, W, r: {"bias": np.arange(6.0)},
    "covariance": lambda p, W, r: {"C": p.put(W @ W.T), "n_samples": 0},
}


def source_at(place: Place, kind: str, W: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    if kind in ("gram", "qr"):
        acc = fb.Accumulator(6, False, kind, "double", **place.keywords())
        acc.update(place.put(rng.standard_normal((50, 6))))
        return {"kind": "accumulator", "acc": acc, "bias": None, "center": False}
    if kind == "stack":
        stack = [(0.5, place.put(rng.standard_normal((9, 6))))]
        return {"kind": "isotropic", "bias": None, "stack": stack}
    return {"kind": kind} | SOURCES[kind](place, W, rng)


@pytest.mark.parametrize("gauge", ["identity", "canonical", "given"])
@pytest.mark.parametrize("kind", [*SOURCES, "gram", "qr", "stack"])
def test_descramble(place: Place, kind: str, gauge: str, rng: np.random.Generator) -> None:
    W = rng.standard_normal((6, 6))
    P0 = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    options = {"gauge": gauge, "group": "special_orthogonal"}
    given = place.put(P0) if gauge == "given" else None
    found = descramble(place.put(W, "float32"), source_at(place, kind, W), P0=given, dtype="float32", **options)
    there = PLACES["numpy"]
    W32 = W.astype(np.float32)
    expected = descramble(W32, source_at(there, kind, W), P0=P0, dtype="float32", **options)
    for name in ("P", "weights"):
        assert place.get(found[name]).dtype == np.float32
        np.testing.assert_allclose(place.get(found[name]), expected[name], atol=1e-5)
    for name in ("cost", "optimum", "identity_cost", "sigma", "gauge_conditioning", "block_error"):
        if expected[name] is not None:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    assert {type(found[name]) for name in ("sigma", "blocks")} == {np.ndarray}


def test_permutation(place: Place, rng: np.random.Generator) -> None:
    W = rng.standard_normal((9, 4))
    found = descramble(place.put(W), {"kind": "isotropic", "bias": None}, group="permutation")
    expected = descramble(W, {"kind": "isotropic", "bias": None}, group="permutation")
    np.testing.assert_array_equal(found["permutation"], expected["permutation"])
    np.testing.assert_array_equal(place.get(found["weights"]), W[expected["permutation"]])


def test_wide_components_go_to_the_device(
    place: Place, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    module = sys.modules["brockett._fallback.descramble"]
    seen = []

    def spy(A: Any) -> Any:
        seen.append(place.get(A).shape)
        return module_svd(A)

    module_svd = module.svd_thin
    monkeypatch.setattr(module, "svd_thin", spy)
    n = 70  # a null space of 69, wider than what is decomposed on the host
    y = rng.standard_normal((1, n))
    found = descramble(None, {"kind": "preactivations", "Y": place.put(y), "center": False})
    P = place.get(found["P"])
    assert seen == [(69, 69)]
    descramble(None, {"kind": "covariance", "C": place.put(np.zeros((6, 6)))})
    assert seen == [(69, 69)]
    np.testing.assert_allclose(P @ P.T, np.eye(n), atol=1e-13)
    assert found["rank"] == 1
    assert found["cost"] < 1e-20 * found["identity_cost"]  # all energy in the mean, whose eigenvalue is 0


def test_diagonalize_and_cost(place: Place, rng: np.random.Generator) -> None:
    W, P = rng.standard_normal((5, 3)), rng.standard_normal((5, 5))
    C = W @ W.T
    for criterion in ("sum", "square"):
        for group in ("orthogonal", "special_orthogonal"):
            found = fb.diagonalize(place.put(W), criterion, group, 100, 1e-14)
            expected = fb.diagonalize(W, criterion, group, 100, 1e-14)
            np.testing.assert_allclose(place.get(found["P"]), expected["P"], atol=1e-9)
    found = fb.brockett_cost(place.put(P), place.put(C), FOURIER)
    expected = fb.brockett_cost(P, C, FOURIER)
    np.testing.assert_allclose(place.get(found["gradient"]), expected["gradient"], rtol=1e-12, atol=1e-10)
    assert found["value"] == pytest.approx(expected["value"], rel=1e-13)


def test_normals(place: Place) -> None:
    np.testing.assert_array_equal(place.get(fb.normals(3, 2, 5, **place.keywords())), fb.normals(3, 2, 5))


def test_nan_is_named_on_a_device(place: Place) -> None:
    A = np.ones((3, 4))
    A[1, 2] = np.inf
    with pytest.raises(NonFinite) as error:
        svd(place.put(A))
    assert error.value.index == (1, 2)


# --- refusals ---------------------------------------------------------------------------------------------------------

small = array_api_strict.asarray([[1.0, 2.0], [3.0, 4.0]], dtype=array_api_strict.float32, device=NO_FLOAT64)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("A", lambda: svd(small)),
        ("A", lambda: fb.singular_values(small, "auto")),
        ("W", lambda: fb.whitened_svd(small, small, 1)),
        ("W", lambda: descramble(small, {"kind": "isotropic", "bias": None})),
        ("preactivations", lambda: descramble(None, {"kind": "preactivations", "Y": small, "center": False})),
        ("C", lambda: descramble(None, {"kind": "covariance", "C": small})),
        ("W", lambda: fb.diagonalize(small, "sum", "orthogonal", 10, 1e-14)),
        ("P", lambda: fb.brockett_cost(small, small, FOURIER)),
        ("device", lambda: fb.Accumulator(2, False, "gram", "double", xp=array_api_strict, device=NO_FLOAT64)),
        ("device", lambda: fb.normals(2, 2, 0, xp=array_api_strict, device=NO_FLOAT64)),
        ("X", lambda: fb.Accumulator(2, False, "gram", "double").update(small)),
    ],
)
def test_no_float64_is_refused_by_name(argument: str, call: Callable[[], Any]) -> None:
    with pytest.raises(InvalidType, match=r"no_float64.*no float64") as error:
        call()
    assert error.value.argument == argument


def test_places_are_not_mixed() -> None:
    here, there = PLACES["strict"], PLACES["device1"]
    A = np.eye(3)
    acc = fb.Accumulator(3, False, "gram", "double", **there.keywords())
    with pytest.raises(InvalidType, match=r"device1.*CPU_DEVICE") as error:
        acc.update(here.put(A))
    assert error.value.argument == "X"
    with pytest.raises(InvalidType, match="numpy"):
        acc.update(A)
    acc.update(there.put(A))
    with pytest.raises(InvalidType) as error:
        fb.Accumulator(3, False, "gram", "double").merge(acc)
    assert error.value.argument == "other"
    for source in (
        {"kind": "inputs", "X": there.put(A), "bias": None, "center": False},
        {"kind": "matrix", "R": there.put(A), "n_samples": 0},
        {"kind": "covariance", "C": there.put(A)},
        {"kind": "accumulator", "acc": acc, "bias": None, "center": False},
        {"kind": "isotropic", "bias": None, "stack": [(1.0, there.put(A))]},
    ):
        with pytest.raises(InvalidType, match="device1"):
            descramble(here.put(A), source)
    with pytest.raises(InvalidType) as error:
        fb.whitened_svd(here.put(A), there.put(A), 0)
    assert error.value.argument == "R"
    with pytest.raises(InvalidType) as error:
        fb.brockett_cost(here.put(A), there.put(A), FOURIER)
    assert error.value.argument == "C"
    with pytest.raises(InvalidArgument):
        descramble(None, {"kind": "isotropic", "bias": None})
