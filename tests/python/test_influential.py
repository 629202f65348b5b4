"""Influential SVD neurons and class profiles: against hand solutions, DeepDataProfiler's definition and plain loops."""

from __future__ import annotations

import types

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brockett as bk
from brockett.hypergraph import ClassProfiles, Influential, influential


# --------------------------------------------------------------------------------------------------------- influential
def by_definition(U, Y, bias, aggregation, threshold, weights):
    """One input at a time, as DeepDataProfiler's text has it: sort, add up, stop."""
    mask = np.zeros((len(Y), U.shape[1]), bool)
    values = np.zeros(mask.shape)
    projections = np.zeros(mask.shape)
    for i, y in enumerate(Y):
        centred = y.reshape(len(U), -1) - (0 if bias is None else bias[:, None])
        p = U.T @ centred
        a = {"sum": p.mean(axis=1), "max": p.max(axis=1), "min": p.min(axis=1)}[aggregation]
        projections[i] = a
        if threshold is None:
            mask[i], values[i] = a != 0, a
            continue
        order = sorted(range(len(a)), key=lambda j: -abs(a[j]))
        total, sums, taken = sum(abs(a[j]) for j in order), 0.0, []
        before = total  # what DeepDataProfiler divides by: the sum of those taken but the last
        for j in order:
            if sums / total > threshold:
                break
            before = sums if taken else total
            sums += abs(a[j])
            taken.append(j)
        if sums / total <= threshold:
            before = sums  # there was no further one
        for j in taken:
            mask[i, j] = True
            values[i, j] = abs(a[j]) / (total if weights == "share" else before)
    return projections, mask, values


def test_hand_solution():
    y = [[4.0, -3.0, 2.0, 1.0]]
    layer = types.SimpleNamespace(U=np.eye(4))
    found = influential(layer, y, threshold=0.5)
    assert found.mask.tolist() == [[True, True, False, False]]  # 0.4 does not exceed a half, 0.7 does
    np.testing.assert_allclose(found.weights, [[0.4, 0.3, 0, 0]], rtol=1e-15)
    assert found.projections.tolist() == y
    assert found.neurons(0).tolist() == [0, 1]
    assert found.neurons(0).dtype == np.int64
    other = influential(layer, y, threshold=0.5, weights="deepdataprofiler")
    np.testing.assert_allclose(other.weights, [[1.0, 0.75, 0, 0]], rtol=1e-15)
    first = influential(layer, y, threshold=0.1, weights="deepdataprofiler")
    np.testing.assert_allclose(first.weights, [[0.4, 0, 0, 0]], rtol=1e-15)
    # 0.4 is reached and not exceeded: one more
    assert influential(layer, y, threshold=0.4).mask.sum() == 2
    assert influential(layer, y, threshold=1.0).mask.all()
    assert influential(layer, y, threshold=None).weights.tolist() == y
    assert influential(layer, y, threshold=1.0, rank=2).weights.tolist() == [[4 / 7, 3 / 7]]


@pytest.mark.parametrize("aggregation", ["sum", "max", "min"])
@pytest.mark.parametrize("weights", ["share", "deepdataprofiler"])
@pytest.mark.parametrize("threshold", [0.1, 0.55, 1.0, None])
def test_equals_the_definition(engine, rng, aggregation, weights, threshold):
    W = rng.normal(size=(7, 3, 2, 2))
    b = rng.normal(size=7) * 5
    Y = rng.normal(size=(9, 7, 4, 3)) + b[:, None, None]
    found = influential(W, Y, bias=b, aggregation=aggregation, weights=weights, threshold=threshold)
    U = bk.svd(W.reshape(7, -1)).U
    expected = by_definition(U, Y, b, aggregation, threshold, weights)
    np.testing.assert_allclose(found.projections, expected[0], atol=1e-12)
    np.testing.assert_array_equal(found.mask, expected[1])
    np.testing.assert_allclose(found.weights, expected[2], atol=1e-12)
    assert (found.threshold, found.aggregation) == (threshold, aggregation)
    assert (found.n_inputs, found.n_neurons) == (9, 7)


def test_projections_are_those_of_the_inputs(rng):
    """u_jᵀ (W x) = s_j v_jᵀ x."""
    W, b, X = rng.normal(size=(5, 8)), rng.normal(size=5), rng.normal(size=(6, 8))
    _, s, Vt = bk.svd(W)
    found = influential(W, X @ W.T + b, bias=b)
    np.testing.assert_allclose(found.projections, X @ Vt.T * s, atol=1e-12)


def test_blocks_of_positions_do_not_matter(rng, monkeypatch):
    from brockett._fallback import hypergraph as engine_text

    W, Y = rng.normal(size=(4, 6)), rng.normal(size=(11, 4, 5))
    whole = influential(W, Y, aggregation="max")
    monkeypatch.setattr(engine_text, "_BLOCK_BYTES", 3 * 4 * 5 * 8)
    np.testing.assert_array_equal(influential(W, Y, aggregation="max").projections, whole.projections)


def test_channel_axis_and_decompositions(rng):
    W, Y = rng.normal(size=(5, 8)), rng.normal(size=(3, 4, 5))  # inputs, tokens, outputs
    last = influential(W, Y, channel_axis=-1)
    np.testing.assert_allclose(last.projections, influential(bk.svd(W), np.swapaxes(Y, 1, 2)).projections, atol=1e-14)
    assert influential(W, Y[:0], channel_axis=2).mask.shape == (0, 5)
    with pytest.raises(bk.InvalidArgument, match=r"5 outputs on axis 1.*\(3, 4, 5\)"):
        influential(W, Y)


def test_an_input_without_a_trace_has_no_neurons():
    found = influential(np.eye(2), [[0.0, 0.0], [0.0, 2.0]], threshold=1.0)
    assert found.mask.tolist() == [[False, False], [False, True]]
    assert np.isfinite(found.weights).all()
    assert influential(np.eye(2), [[0.0, 0.0]], weights="deepdataprofiler").weights.tolist() == [[0.0, 0.0]]


def test_other_libraries(rng):
    W, b, Y = rng.normal(size=(4, 6)), rng.normal(size=4), rng.normal(size=(3, 4, 5))
    for aggregation in ("sum", "max"):
        expected = influential(W, Y, bias=b, aggregation=aggregation)
        for device in ("CPU_DEVICE", "device1"):
            there = [array_api_strict.asarray(a, device=array_api_strict.Device(device)) for a in (W, Y)]
            found = influential(there[0], there[1], bias=b.tolist(), aggregation=aggregation)
            assert isinstance(found.projections, np.ndarray)
            np.testing.assert_allclose(found.projections, expected.projections, atol=1e-12)
            np.testing.assert_array_equal(found.mask, expected.mask)
    with pytest.raises(bk.InvalidType, match="array_api_strict"):
        influential(W, array_api_strict.asarray(Y))


def test_torch_and_half_types(rng):
    torch = pytest.importorskip("torch")
    W, Y = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(3, 4, 5)).astype(np.float32)
    half = torch.from_numpy(Y).to(torch.bfloat16)
    found = influential(torch.from_numpy(W), half, aggregation="min")
    expected = influential(W, half.float().numpy(), aggregation="min")
    np.testing.assert_array_equal(found.projections, expected.projections)
    profiles = ClassProfiles(3)
    profiles.update(found, torch.tensor([0, 2, 2]))
    assert profiles.n_inputs.tolist() == [1, 0, 2]


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.0001, float("nan"), float("inf")])
def test_thresholds_are_shares(threshold):
    with pytest.raises(bk.InvalidArgument, match=r"^threshold: "):
        influential(np.eye(2), [[1.0, 2.0]], threshold=threshold)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"preactivations": np.ones((2, 3))},
            r"preactivations: expected the layer's 2 outputs on axis 1, got .*\(2, 3\)",
        ),
        ({"preactivations": np.ones(2)}, "preactivations: expected .n_inputs"),
        ({"preactivations": np.ones((2, 2, 0))}, "preactivations: has no positions"),
        ({"preactivations": 1j * np.ones((2, 2))}, "preactivations: complex"),
        ({"layer": np.ones(2)}, "layer: expected weights"),
        ({"layer": np.ones((2, 0))}, "layer: must not be empty"),
        ({"layer": types.SimpleNamespace(U=np.ones((2, 2, 2)))}, r"layer.U: expected one matrix"),
        ({"bias": np.ones(3)}, r"bias: expected shape \(2,\)"),
        ({"aggregation": "mean"}, "aggregation: expected one of 'sum', 'max', 'min'"),
        ({"weights": "total"}, "weights: expected one of"),
        ({"rank": 3}, "rank: expected at most the 2"),
        ({"rank": 0}, "rank: expected 1 or more"),
        ({"channel_axis": 2}, "preactivations: expected .* axis 2"),
        ({"channel_axis": 0}, "preactivations: expected .* axis 0"),
        ({"channel_axis": 1.0}, "channel_axis: expected an integer"),
    ],
)
def test_what_does_not_fit_is_named(change, says):
    with pytest.raises(bk.InvalidArgument, match=says):
        influential(**{"layer": np.eye(2), "preactivations": np.ones((4, 2)), **change})


def test_non_finite_values_are_named_with_the_callers_index(rng):
    W, Y = np.eye(3), rng.normal(size=(2, 4, 3))
    Y[1, 2, 0] = np.inf
    with pytest.raises(bk.NonFinite, match=r"preactivations: NaN or Inf at index \(1, 2, 0\)"):
        influential(W, Y, channel_axis=-1)
    K = rng.normal(size=(3, 2, 2))
    K[2, 1, 0] = np.nan
    with pytest.raises(bk.NonFinite, match=r"layer: NaN or Inf at index \(2, 1, 0\)"):
        influential(K, np.ones((1, 3)))
    with pytest.raises(bk.NonFinite, match=r"layer.U: .*\(1, 1\)"):
        influential(types.SimpleNamespace(U=np.diag([1.0, np.nan])), np.ones((1, 2)))
    with pytest.raises(bk.NonFinite, match=r"bias: .*\(1,\)"):
        influential(np.eye(2), np.ones((1, 2)), bias=[0.0, np.nan])
    with pytest.raises(bk.InvalidArgument, match=r"^i: "):
        influential(np.eye(2), np.ones((1, 2))).neurons(1)


def test_inputs_are_left_alone(rng):
    W, Y, b = rng.normal(size=(3, 3)), rng.normal(size=(2, 3, 4)), rng.normal(size=3)
    copies = [a.copy() for a in (W, Y, b)]
    for array in (W, Y, b):
        array.flags.writeable = False
    influential(W, Y, bias=b, aggregation="max", threshold=None).weights[:] = 0
    for array, copy in zip((W, Y, b), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


# ------------------------------------------------------------------------------------------------------------ profiles
def batch(rng, n, sizes=(("a", 5), ("b", 3))):
    return {name: influential(np.eye(r), rng.normal(size=(n, r)), threshold=0.5) for name, r in sizes}


def rows(found, keep):
    return {
        name: Influential(one.projections[keep], one.mask[keep], one.weights[keep], one.threshold, one.aggregation)
        for name, one in found.items()
    }


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=4), order=st.permutations(range(40)), merge=st.booleans())
def test_profiles_do_not_depend_on_batches(cuts, order, merge):
    rng = np.random.default_rng(5)
    found, labels = batch(rng, 40), rng.integers(0, 4, 40)
    parts = np.split(np.array(order), sorted(cuts))
    total = ClassProfiles(4)
    for keep in parts:
        target = ClassProfiles(4) if merge else total
        target.update(rows(found, keep), labels[keep])
        if merge:
            total.merge(target)
    for name, one in found.items():
        counts = np.array([one.mask[labels == c].sum(axis=0) for c in range(4)])
        sums = np.array([one.weights[labels == c].sum(axis=0) for c in range(4)])
        np.testing.assert_array_equal(total.counts(name), counts)
        np.testing.assert_allclose(total.weights(name), sums / np.maximum(counts, 1), rtol=1e-12)
        np.testing.assert_allclose(total.frequencies(name), counts / np.bincount(labels)[:, None], rtol=1e-15)
    assert total.n_inputs.tolist() == np.bincount(labels, minlength=4).tolist()
    assert total.layers == {"a": 5, "b": 3}


def test_profiles_come_back_from_a_file(rng, tmp_path):
    profiles = ClassProfiles(3, ["x", "y", "é"])
    profiles.update(batch(rng, 20, [("conv/1.weight", 4), ("fc", 2)]), rng.integers(0, 3, 20))
    profiles.save(tmp_path / "profiles")
    again = ClassProfiles.load(tmp_path / "profiles")
    assert again.class_names == ("x", "y", "é")
    assert again.layers == {"conv/1.weight": 4, "fc": 2}
    for name in again.layers:
        np.testing.assert_array_equal(again.counts(name), profiles.counts(name))
        np.testing.assert_array_equal(again.weights(name), profiles.weights(name))
    again.merge(profiles)
    np.testing.assert_array_equal(again.n_inputs, 2 * profiles.n_inputs)
    ClassProfiles(2).save(tmp_path / "empty")
    assert ClassProfiles.load(tmp_path / "empty").n_classes == 2
    assert ClassProfiles.load(tmp_path / "empty").class_names is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "profiles"]


@pytest.mark.parametrize(
    "damage",
    [
        "cut", "format", "shape", "negative", "nan", "missing", "more", "floats", "twice", "no neurons", "no counts",
        "negative inputs", "wrapped inputs", "no layers", "names",
    ],
)  # fmt: skip
def test_damaged_files_are_refused(rng, tmp_path, damage):
    profiles = ClassProfiles(2)
    profiles.update(batch(rng, 6), rng.integers(0, 2, 6))
    path = tmp_path / "p.npz"
    profiles.save(path)
    arrays = dict(np.load(path))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        match damage:
            case "format":
                arrays["format"] = np.array("something else")
            case "shape":
                arrays["counts_0"] = arrays["counts_0"][:, :2]
            case "negative":
                arrays["counts_1"][0, 0] = -1
            case "nan":
                arrays["weights_1"][0, 0] = np.nan
            case "missing":
                del arrays["weights_0"]
            case "more":
                arrays["counts_0"][0, 0] = 100  # than there were inputs
            case "floats":
                arrays["counts_0"] = arrays["counts_0"].astype(float)
            case "twice":
                arrays["layers"] = np.array(["a", "a"])
            case "no neurons":
                arrays["counts_0"], arrays["weights_0"] = arrays["counts_0"][:, :0], arrays["weights_0"][:, :0]
            case "no counts":  # but weights of them
                arrays["counts_0"] = np.zeros_like(arrays["counts_0"])
            case "negative inputs":
                arrays["n_inputs"] = -arrays["n_inputs"]
            case "wrapped inputs":
                arrays["n_inputs"] = np.full(2, 2**64 - 1, dtype=np.uint64)
            case "no layers":
                arrays["layers"] = np.array([], dtype=np.str_)
            case "names":
                arrays["class_names"] = np.array(["x", "x"])
        np.savez(path, **arrays)
    with pytest.raises(bk.FileFormatError, match=r"p\.npz"):
        ClassProfiles.load(path)


def test_refused_batches_change_nothing(rng):
    profiles = ClassProfiles(3)
    profiles.update(batch(rng, 4), [0, 1, 1, 2])
    counts, weights = profiles.counts("a"), profiles.weights("b")
    good = batch(rng, 2)
    bad = [
        (good, [0, 3], "labels: expected classes 0 … 2, got 3 at index 1"),
        (good, [-1, 0], "labels: .* got -1 at index 0"),
        (good, [0], r"labels: .*shape \(2,\), got \(1,\)"),
        (good, [0.0, 1.0], "labels: expected integers"),
        ({"a": good["a"]}, [0, 1], "found: expected the layers"),
        ({"a": good["a"], "b": batch(rng, 3)["b"]}, [0, 1], "different numbers of inputs"),
        (batch(rng, 2, [("a", 5), ("b", 4)]), [0, 1], "found: .*'b': 3.*'b': 4"),
        ({}, [], "at least one layer"),
        ([good], [0, 1], "found: expected Influential"),
    ]
    for found, labels, says in bad:
        with pytest.raises(bk.InvalidArgument, match=says):
            profiles.update(found, labels)
    np.testing.assert_array_equal(profiles.counts("a"), counts)
    np.testing.assert_array_equal(profiles.weights("b"), weights)
    assert profiles.n_inputs.tolist() == [1, 2, 1]
    profiles.counts("a")[:] = 7
    np.testing.assert_array_equal(profiles.counts("a"), counts)


def test_profiles_that_do_not_go_together(rng):
    profiles = ClassProfiles(3)
    profiles.update(batch(rng, 2), [0, 1])
    other = ClassProfiles(3)
    other.update(batch(rng, 2, [("a", 4), ("b", 3)]), [0, 1])
    for wrong, says in [(ClassProfiles(4), "of 4 classes"), (other, "of layers"), (3, "expected ClassProfiles")]:
        with pytest.raises(bk.InvalidArgument, match=f"^other: .*{says}"):
            profiles.merge(wrong)
    profiles.merge(ClassProfiles(3))  # nothing in it
    with pytest.raises(bk.InvalidArgument, match="layer: there is no layer 'c'"):
        profiles.counts("c")
    for names, says in [(["a"], "expected 3"), (["a", "a", "b"], "twice"), ("abc", "sequence")]:
        with pytest.raises(bk.InvalidArgument, match=f"class_names: .*{says}"):
            ClassProfiles(3, names)
    with pytest.raises(bk.InvalidArgument, match="n_classes: expected 1 or more"):
        ClassProfiles(0)


def test_magnitudes_at_the_ends_of_the_range() -> None:
    """Sums of a row beyond the range of its entries cost nothing; entries beyond it are an error, not NaN weights."""
    W, Y = np.eye(3), np.array([[3.0, 2.0, 1.0]])
    usual = bk.hypergraph.influential(W, Y, threshold=0.6)
    for scale in (5e307, 1e-306):
        found = bk.hypergraph.influential(W, Y * scale, threshold=0.6)
        np.testing.assert_array_equal(found.mask, usual.mask)
        np.testing.assert_allclose(found.weights, usual.weights, rtol=1e-12)
    U = bk.svd(np.ones((2, 2)))
    with pytest.raises(bk.InvalidArgument, match="preactivations: their projections leave the range of float64"):
        bk.hypergraph.influential(U, np.full((1, 2), 1.6e308))
