"""The ``brockett`` command: what it writes, what it says, and how it fails."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command needs the extra 'cli'")
pytest.importorskip("rich", reason="the command needs the extra 'cli'")
pytest.importorskip("matplotlib", reason="the command needs the extra 'cli'")
pytest.importorskip("safetensors", reason="the command needs the extra 'cli'")

import brockett as bk
from brockett import _commands
from brockett.cli import main

N_OUT, N_IN, N_SAMPLES = 12, 9, 500


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a layer and its inputs, as the working directory."""
    rng = np.random.default_rng(8)  # of which P is a reflection, so that SO(n) has another one
    x = np.cumsum(rng.standard_normal((N_SAMPLES, N_IN)), axis=1) + 1.0
    np.save(tmp_path / "W.npy", rng.standard_normal((N_OUT, N_IN)))
    np.save(tmp_path / "X.npy", x)
    np.save(tmp_path / "b.npy", rng.standard_normal(N_OUT))
    np.save(tmp_path / "R.npy", x.T @ x / N_SAMPLES)
    monkeypatch.chdir(tmp_path)
    # Several blocks, the last one shorter.
    monkeypatch.setattr(_commands, "_BLOCK_BYTES", 150 * N_IN * 8)
    return tmp_path


def load(name):
    return np.load(name)


def fails(capsys, *arguments):
    """Run a command that must fail: exit code 2, nothing on standard output, one line on standard error."""
    code = main([str(a) for a in arguments])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("brockett: ")]
    assert code == 2
    assert said.out == ""
    assert len(lines) == 1
    assert "Traceback" not in said.err
    return lines[0]


# ---------------------------------------------------------------------------------------------------------- descramble
def test_descramble_streams_what_the_library_computes(folder, capsys):
    assert main(["descramble", "W.npy", "--inputs", "X.npy", "-o", "out.npz"]) == 0
    expected = bk.descramble(load("W.npy"), inputs=load("X.npy"))
    found = bk.Descrambling.load("out.npz")
    np.testing.assert_allclose(found.P, expected.P, atol=1e-9)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-9)
    assert found.cost == pytest.approx(expected.cost, rel=1e-9)
    assert found.used["n_samples"] == N_SAMPLES
    said = capsys.readouterr()
    assert f"{expected.identity_cost:.6g}" in said.out
    assert f"{expected.optimum:.6g}" in said.out
    assert "written: out.npz" in said.out
    assert "500/500" in said.err  # the progress bar


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--center"], {"center": True}),
        (["--bias", "b.npy"], {"bias": True}),
        (["--penalty", "fourier", "--order", "1.5"], {"penalty": bk.penalty.FourierDerivative(1.5)}),
        (["--penalty", "difference", "--order", "1"], {"penalty": bk.penalty.FiniteDifference(1, "periodic")}),
        (["--penalty", "neumann"], {"penalty": bk.penalty.FiniteDifference(2, "neumann")}),
        (["--group", "special_orthogonal"], {"group": "special_orthogonal"}),
        (["--group", "permutation", "--seed", "3"], {"group": "permutation", "seed": 3}),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, list) else "",
)
def test_descramble_options_reach_the_library(folder, words, options):
    assert main(["descramble", "W.npy", "--inputs", "X.npy", "-o", "out.npz", *words]) == 0
    if "bias" in options:
        options = {"bias": load("b.npy")}
    acc = bk.Autocorrelation(N_IN, center=options.get("center", False))
    acc.update(load("X.npy"))
    expected = bk.descramble(load("W.npy"), autocorrelation=acc, **options)
    found = bk.Descrambling.load("out.npz")
    assert found.cost == pytest.approx(expected.cost, rel=1e-8)
    np.testing.assert_allclose(found.P, expected.P, atol=1e-8)
    plain = bk.descramble(load("W.npy"), inputs=load("X.npy"))
    # The option made a difference; the order of a Fourier penalty makes one in the cost only.
    assert np.abs(found.P - plain.P).max() > 1e-3 or abs(found.cost / plain.cost - 1) > 1e-3


def test_descramble_from_a_matrix_and_from_a_saved_accumulator(folder):
    acc = bk.Autocorrelation(N_IN)
    acc.update(load("X.npy"))
    acc.save("acc.npz")
    (folder / "acc.npz").rename(folder / "acc.npy")  # known by its contents, not by its name
    costs = []
    for source in ("R.npy", "acc.npy"):
        assert main(["descramble", "W.npy", "--autocorrelation", source, "-o", "out.npz"]) == 0
        costs.append(bk.Descrambling.load("out.npz").cost)
    assert costs[0] == pytest.approx(costs[1], rel=1e-10)
    assert main(["descramble", "W.npy", "--autocorrelation", "acc.npy", "--bias", "b.npy", "-o", "out.npz"]) == 0
    assert bk.Descrambling.load("out.npz").used["bias"]


def test_descramble_without_data_says_so(folder):
    assert main(["descramble", "W.npy", "--isotropic", "-o", "out.npz"]) == 0
    assert bk.Descrambling.load("out.npz").used["source"] == "isotropic"


@pytest.mark.parametrize("layout", ["fortran", "three axes", "float32", "big-endian", "integers"])
def test_descramble_reads_any_layout_of_samples(folder, layout):
    x = load("X.npy")
    if layout == "integers":
        x = np.rint(10 * x)
    expected = bk.descramble(load("W.npy"), inputs=x).cost
    stored = {
        "fortran": np.asfortranarray(x),
        "three axes": x.reshape(5, 100, N_IN),
        "float32": x.astype(np.float32),
        "big-endian": x.astype(">f8"),
        "integers": x.astype(np.int16),
    }[layout]
    np.save("X.npy", stored)
    assert main(["descramble", "W.npy", "--inputs", "X.npy", "-o", "out.npz"]) == 0
    assert bk.Descrambling.load("out.npz").cost == pytest.approx(expected, rel=1e-5 if layout == "float32" else 1e-9)


def test_descramble_unfolds_convolutions_and_plots(folder):
    np.save("K.npy", np.random.default_rng(0).standard_normal((N_OUT, 3, 3)))
    assert main(["descramble", "K.npy", "--inputs", "X.npy", "-o", "out.npz", "--plot", "out.png"]) == 0
    assert bk.Descrambling.load("out.npz").weights.shape == (N_OUT, 3, 3)
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_descramble_maps_its_inputs(folder, monkeypatch):
    seen = []
    update = bk.Autocorrelation.update

    def watch(self, X, *args, **kwargs):
        seen.append((type(X), X.shape))
        update(self, X, *args, **kwargs)

    monkeypatch.setattr(bk.Autocorrelation, "update", watch)
    assert main(["descramble", "W.npy", "--inputs", "X.npy", "-o", "out.npz"]) == 0
    assert [shape[0] for _, shape in seen] == [150, 150, 150, 50]
    assert all(kind is np.memmap for kind, _ in seen)


def test_warnings_are_one_line(folder, capsys):
    acc = bk.Autocorrelation(N_IN, precision="single")
    acc.update(load("X.npy").astype(np.float32))
    acc.save("acc.npz")
    # As in a program of its own: the test runner turns warnings into errors and keeps its own hook.
    done = command("descramble", "W.npy", "--autocorrelation", "acc.npz", "-o", "out.npz", cwd=folder)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("brockett: warning: ")
    assert "single" in line


# ---------------------------------------------------------------------------------------------------- what goes wrong
def spoil(kind):
    """Overwrite X.npy with something that is not what it should be."""
    x = load("X.npy")
    path = Path("X.npy")
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(b"\x93NUMPY\x01\x00garbage")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(x))
    elif kind == "objects":
        np.save("X.npy", np.array([{}], dtype=object), allow_pickle=True)
    elif kind == "archive":
        np.savez("X.npz", x)
        Path("X.npz").rename("X.npy")
    elif kind == "complex":
        np.save("X.npy", x + 0j)
    elif kind == "text":
        np.save("X.npy", np.full((3, N_IN), "a"))
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "width":
        np.save("X.npy", x[:, 1:])
    elif kind == "one axis":
        np.save("X.npy", x[:, 0])
    elif kind == "no samples":
        np.save("X.npy", x[:0])
    elif kind == "nan":
        x[437, 4] = np.nan
        np.save("X.npy", x)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "X.npy: No such file"),
        ("empty", "X.npy: .*empty"),
        ("garbage", "X.npy: .*damaged"),
        ("truncated", "X.npy: .*truncated"),
        ("pickle", "X.npy: .*pickle"),
        ("objects", "X.npy: .*pickled"),
        ("archive", "X.npy: .*npz"),
        ("complex", "inputs .*complex"),
        ("text", "inputs .*real numbers"),
        ("folder", "X.npy: "),
        ("width", r"inputs .*expected \(n_samples, 9\).*\(500, 8\)"),
        ("one axis", r"inputs .*\(500,\)"),
        ("no samples", r"inputs .*\(0, 9\)"),
        ("nan", r"inputs \(X.npy\): NaN or Inf at index \(437, 4\)"),
    ],
)
def test_bad_inputs_are_one_line(folder, capsys, kind, says):
    spoil(kind)
    assert re.search(
        says, fails(capsys, "descramble", "W.npy", "--inputs", "X.npy", "-o", "out.npz", "--plot", "out.png")
    )
    assert not Path("out.npz").exists()
    assert not Path("out.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "exactly one of --inputs, --autocorrelation and --isotropic"),
        (["--inputs", "X.npy", "--isotropic"], "exactly one of"),
        (["--inputs", "X.npy", "--autocorrelation", "R.npy"], "exactly one of"),
        (["--inputs", "X.npy", "--bias", "X.npy"], "bias"),
        (["--inputs", "X.npy", "--bias", "none.npy"], "none.npy: No such file"),
        (["--inputs", "X.npy", "--penalty", "foo"], "foo.*fourier"),
        (["--inputs", "X.npy", "--penalty", "neumann", "--order", "1.5"], "--order: .*whole"),
        (["--inputs", "X.npy", "--order", "nan"], "order"),
        (["--inputs", "X.npy", "--group", "unitary"], "unitary.*orthogonal"),
        (["--autocorrelation", "R.npy", "--center"], "center"),
        (["--autocorrelation", "W.npy"], r"autocorrelation.*\(9, 9\)"),
        (["--autocorrelation", "bad.npz"], "bad.npz: .*damaged"),
        (["--autocorrelation", "other.npz"], "other.npz: "),
        (["--autocorrelation", "minus.npy"], "autocorrelation: .*positive semidefinite"),
        (["--inputs", "X.npy", "--plot", "none/out.png"], "none/out.png: the folder"),
        (["--inputs", "X.npy", "--bogus"], "--bogus"),
    ],
)
def test_bad_options_are_one_line(folder, capsys, words, says):
    Path("bad.npz").write_bytes(b"PK\x03\x04garbage")
    np.savez("other.npz", a=1)
    np.save("minus.npy", -np.eye(N_IN))
    assert re.search(says, fails(capsys, "descramble", "W.npy", "-o", "out.npz", *words))
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("bad", ["vector", "complex", "nan", "empty", "object"])
def test_bad_weights_are_one_line(folder, capsys, bad):
    w = load("W.npy")
    broken = w.copy()
    broken[3, 2] = np.inf
    kinds = {"vector": w[0], "complex": w * 1j, "nan": broken, "empty": w[:0], "object": np.array([None])}
    np.save("W.npy", kinds[bad])
    said = fails(capsys, "descramble", "W.npy", "--inputs", "X.npy", "-o", "out.npz")
    assert "W" in said
    if bad == "nan":
        assert "(3, 2)" in said


@pytest.mark.parametrize("output", ["none/out.npz", "."])
def test_outputs_that_cannot_be_are_found_out_before_the_work(folder, capsys, monkeypatch, output):
    monkeypatch.setattr(bk.Autocorrelation, "update", lambda *_: pytest.fail("worked in vain"))
    assert output in fails(capsys, "descramble", "W.npy", "--inputs", "X.npy", "-o", output)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bogus"], "bogus"),
        (["demo", "--samples", "0"], "--samples"),
        (["demo", "--seed", "-1"], "--seed"),
        (["demo", "--out", "W.npy"], "W.npy: File exists"),
        (["descramble"], "W.npy"),
        (["descramble", "W.npy", "--inputs", "X.npy"], "--output"),
    ],
)
def test_usage_errors_are_one_line(folder, capsys, words, says):
    assert says in fails(capsys, *words)


def test_bugs_are_not_hidden(folder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(bk, "descramble", fail)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        main(["descramble", "W.npy", "--isotropic", "-o", "out.npz"])


def test_running_out_of_memory_is_one_line(folder, capsys, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(bk, "descramble", fail)
    assert "out of memory" in fails(capsys, "descramble", "W.npy", "--isotropic", "-o", "out.npz")


# ---------------------------------------------------------------------------------------------------------------- demo
def test_demo_prints_the_table_and_writes_the_page(tmp_path, capsys):
    from brockett._demo import page

    out = tmp_path / "new" / "page"
    assert main(["demo", "--quick", "--samples", "700", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for column in page.COLUMNS:
        assert column in said
    rows = [line.split() for line in said.splitlines() if re.match(r"\s+(relaxometry|dipolar|bandpass) ", line)]
    assert [(r[0], r[1], r[2]) for r in rows] == [
        *(("relaxometry", str(i + 1), s) for i, s in enumerate(["32×64", "256×32", "256×256", "32×256", "2×32"])),
        ("dipolar", "1", "80×256"),
        ("dipolar", "2", "256×80"),
        ("bandpass", "1", "256×256"),
        ("bandpass", "2", "256×256"),
    ]
    for row in rows:
        identity, optimum, reached = map(float, row[4:7])
        assert optimum < identity
        assert reached == pytest.approx(optimum, rel=1e-3)
        assert all(0.0 < float(v) <= 1.0 for v in row[7:])
        assert len(row) == 1 + len(page.COLUMNS)
    target = out / "index.html"
    assert f"page: {target}" in said
    assert [f.name for f in out.iterdir()] == ["index.html"]
    text = target.read_text(encoding="utf-8")
    assert text.endswith("</html>\n")
    assert "700 inputs per net" in text
    assert f"{rows[0][7]}" in text


def command(*words, cwd, before="", **extra):
    """Run the command in a process of its own."""
    code = f"import sys\n{before}\nfrom brockett.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **extra},
    )


def test_demo_keeps_blas_at_one_thread(tmp_path):
    # The waiting threads of two OpenBLAS on busy cores made the demo forty times slower.
    before = """
import brockett
from brockett._demo import run
from threadpoolctl import threadpool_info

def study(*_):
    brockett.threads()  # by now the core is loaded, or its BLAS would show up here with two threads
    print(sorted({lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}), flush=True)
    raise brockett.BrockettError("enough")

run.study = study
"""
    done = command("demo", "--out", "page", cwd=tmp_path, before=before, OPENBLAS_NUM_THREADS="2")
    assert "enough" in done.stderr
    assert done.stdout == "[1]\n"
    assert list((tmp_path / "page").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_ctrl_c_exits_130_and_leaves_no_page(tmp_path):
    code = "import sys; from brockett.cli import main; sys.exit(main())"
    words = ["demo", "--samples", "100000000", "--out", "page"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / "page").exists():  # made right before the work starts
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)  # seconds, of which a busy machine takes many
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert out == ""
    assert list((tmp_path / "page").iterdir()) == []


@pytest.mark.parametrize("name", ["typer", "rich", "safetensors", "matplotlib", "threadpoolctl"])
def test_without_the_extra_one_line_names_it(tmp_path, name):
    done = command("info", cwd=tmp_path, before=f"sys.modules[{name!r}] = None")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    assert "pip install 'brockett[cli]'" in done.stderr


def test_an_ascii_terminal_is_no_error(folder):
    words = ["descramble", "W.npy", "--isotropic", "-o", "out.npz"]
    done = command(*words, cwd=folder, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.stderr == ""
    assert done.returncode == 0
    assert "12 ? 9" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="pipes as on POSIX")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("word", ["--version", "--help", "info"])
def test_a_reader_that_left_is_no_error(tmp_path, word, unbuffered):
    program = f"{sys.executable} -c 'import sys; from brockett.cli import main; sys.exit(main())' {word} | true"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        program, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""


# ------------------------------------------------------------------------------------------------------ spectra, graph
@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A small network in both kinds of files, as the working directory."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(3)
    layers = {
        "conv.weight": rng.standard_normal((40, 3, 3, 3)).astype(np.float32),
        "conv.bias": np.zeros(40, np.float32),
        "a_rather_long_name.of_a_block.which_is.deep.fc1.weight": rng.standard_normal((60, 40)).astype(np.float32),
        "fc2.weight": rng.standard_normal((20, 60)).astype(np.float32),
    }
    np.savez(tmp_path / "net.npz", **layers)
    save_file(layers, tmp_path / "net.safetensors")
    monkeypatch.chdir(tmp_path)
    return layers


@pytest.mark.parametrize("name", ["net.npz", "net.safetensors"])
def test_spectra_prints_the_table_and_writes_what_is_asked_for(weights, capsys, name):
    assert main(["spectra", name, "-o", "t.csv", "--plot", "s.png", "--interactive", "s.html"]) == 0
    said = capsys.readouterr()
    found = bk.analyze(name)
    for row in found.rows:
        if row["alpha"] is not None:
            (line,) = [text for text in said.out.splitlines() if "×".join(map(str, row["shape"])) + " " in text]
            for column in ("Q", "spectral_norm", "stable_rank", "alpha", "mp_variance", "mp_soft_rank"):
                assert f" {row[column]:.3g} " in line
            assert row["phase"].replace("_", " ") in line
    assert "a_rather_long_name.of_a_block.which_is.deep.fc1.weight" in said.out  # to be pasted
    assert f"weighted alpha of the network: {found.universal.value:.4g}, the mean of 3 layers" in said.out
    assert "not analysed, 1: one axis: a bias or a normalization (conv.bias)" in said.out
    for written in ("t.csv", "s.png", "s.html"):
        assert f"written: {written}" in said.out
        assert Path(written).stat().st_size > 500
    found.save("expected.csv")
    assert Path("t.csv").read_text() == Path("expected.csv").read_text()


def test_spectra_options_reach_the_library(weights, capsys):
    words = ["--select", "fc*", "--select", "conv*", "--convention", "weightwatcher", "-o", "t.json"]
    assert main(["spectra", "net.npz", *words]) == 0
    bk.analyze("net.npz", select=["fc*", "conv*"], convention="weightwatcher").save("expected.json")
    assert Path("t.json").read_text() == Path("expected.json").read_text()
    assert "which_is.deep" not in capsys.readouterr().out


def test_graph_prints_the_joints_and_writes_what_is_asked_for(weights, capsys):
    for output in ("g.json", "g.csv", "g.graphml"):
        assert main(["graph", "net.npz", "-o", output, "--plot", "g.png", "--interactive", "g.html"]) == 0
        said = capsys.readouterr().out
        assert f"written: {output}" in said
    graph = bk.analyze("net.npz").graph(rank=128)
    edges = graph.edges()
    for number, (a, b) in enumerate(graph.layer_edges):
        (line,) = [text for text in said.splitlines() if f" {graph.n_resolved[a]} × {graph.n_resolved[b]} " in text]
        assert f" {np.count_nonzero(edges.edge == number)} " in line
    lines = Path("g.csv").read_text().splitlines()
    assert lines[0] == "from,from_mode,to,to_mode,weight,p_value"
    assert len(lines) == 1 + len(edges)
    first = lines[1].split(",")
    assert (first[0], first[2]) == (graph.layers[edges.source[0]].name, graph.layers[edges.target[0]].name)
    assert float(first[4]) == edges.weight[0]
    graph.to_json("expected.json")
    assert Path("g.json").read_text() == Path("expected.json").read_text()
    assert "graphml" in Path("g.graphml").read_text()[:300]
    data = Path("g.html").read_text(encoding="utf-8").rpartition("Plotly.newPlot(")[2]
    assert all(layer.name in data for layer in graph.layers)
    assert f"{len(edges)} significant edges" in data
    assert "scattergl" not in data.partition('"template"')[0]  # not every browser has WebGL
    assert Path("g.png").read_bytes()[1:4] == b"PNG"


def test_graph_options_reach_the_library(weights, capsys):
    words = ["--edge", "conv.weight:fc2.weight", "--select", "c*", "--select", "fc2*"]
    assert "expected 40 inputs" in fails(capsys, "graph", "net.npz", *words)
    options = ["--rank", "7", "--method", "cosvr", "--sigma", "1", "--null", "beta", "--correction", "bh"]
    assert main(["graph", "net.npz", *options, "-o", "g.json"]) == 0
    expected = bk.analyze("net.npz").graph(rank=7, method="cosvr")
    expected.to_json("expected.json", sigma=1, null="beta", correction="bh")
    assert Path("g.json").read_text() == Path("expected.json").read_text()


def test_tables_hold_names_that_can_be_pasted(tmp_path, monkeypatch, capsys):
    """Long names, brackets and colons: what is printed is what --select and --edge take."""
    rng = np.random.default_rng(5)
    long = "a" * 70 + ".deep.weight"
    layers = {long: rng.standard_normal((20, 30)), "x::b:0": rng.standard_normal((25, 20))}
    layers |= {"rnn.weight_ih_l0": rng.standard_normal((60, 25)), "rnn.weight_hh_l0": rng.standard_normal((60, 15))}
    np.savez(tmp_path / "net.npz", **layers)
    monkeypatch.chdir(tmp_path)
    assert main(["spectra", "net.npz"]) == 0
    said = capsys.readouterr().out
    names = [long, "x::b:0", *(f"rnn.weight_{role}_l0[{gate}]" for role in ("ih", "hh") for gate in "ifgo")]
    for name in names:
        assert f" {name} " in said
        assert main(["spectra", "net.npz", "--select", name, "-o", "t.csv"]) == 0
        capsys.readouterr()
        assert [line.split(",")[0] for line in Path("t.csv").read_text().splitlines()] == ["name", name]
    assert main(["graph", "net.npz", "--edge", f"{long}:x::b:0", "--edge", "x::b:0:rnn.weight_ih_l0[g]"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines() if " × " in line] == [
        [long, "x::b:0"],
        ["x::b:0", "rnn.weight_ih_l0[g]"],
    ]


def test_names_are_text_to_the_terminal_and_to_the_pictures(tmp_path, monkeypatch, capsys):
    """What a file calls its layers moves no cursor, breaks no line and is no formula."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(7)
    names = ["a$\\frac{$", "b\x1b[31m\nc", "$$_^{d"]
    save_file({name: rng.standard_normal((30, 30)) for name in names}, tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    for command in ("spectra", "graph"):
        assert main([command, "w.safetensors", "--plot", "p.png"]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "b\\x1b[31m\\nc" in said
        assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert main(["spectra", "w.safetensors", "--select", "none"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_models_of_other_formats(tmp_path, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(6)
    arrays = {name: rng.standard_normal((12, 12, 3)).astype(np.float32) for name in ("first", "second")}
    arrays |= {name: np.abs(rng.standard_normal(12)).astype(np.float32) + 1 for name in ("gamma", "beta", "mu", "var")}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "first"], ["a"]),
        onnx.helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mu", "var"], ["b"]),
        onnx.helper.make_node("Conv", ["b", "second"], ["y"]),
    ]
    held = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    value = onnx.helper.make_tensor_value_info
    ends = [value("x", 1, (1, 12, 9))], [value("y", 1, None)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", *ends, held))
    onnx.save(model, tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    for words, scale in (([], 1), (["--fold-norm"], arrays["gamma"] / np.sqrt(arrays["var"] + 1e-5))):
        assert main(["spectra", "net.onnx", "-o", "t.json", *words]) == 0
        first = json.loads(Path("t.json").read_text())["layers"][0]
        expected = arrays["first"].reshape(12, -1) * np.reshape(scale, (-1, 1))
        np.testing.assert_allclose(first["singular_values"], np.linalg.svd(expected)[1], rtol=1e-5)
        assert main(["graph", "net.onnx", *words]) == 0
        assert ["first", "second"] in [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    np.save("X.npy", rng.standard_normal((50, 36)))
    assert main(["descramble", "net.onnx", "--layer", "second", "--inputs", "X.npy", "-o", "out.npz"]) == 0
    same = bk.descramble(arrays["second"], inputs=load("X.npy"))
    assert bk.Descrambling.load("out.npz").cost == pytest.approx(same.cost, rel=1e-9)
    capsys.readouterr()
    rest = ["--inputs", "X.npy", "-o", "out.npz"]
    several = fails(capsys, "descramble", "net.onnx", *rest)
    assert "net.onnx: holds 2 layers of weights: name one with --layer (first, second)" in several
    assert "has no 'third'" in fails(capsys, "descramble", "net.onnx", "--layer", "third", *rest)
    assert "gamma (net.onnx): one axis" in fails(capsys, "descramble", "net.onnx", "--layer", "gamma", *rest)


def test_an_empty_archive_says_so(tmp_path, capsys):
    np.savez(tmp_path / "none.npz")
    for name in ("spectra", "graph"):
        assert "none.npz: is an empty archive, it holds no arrays" in fails(capsys, name, tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["spectra", "none.npz"], "none.npz: No such file"),
        (["spectra", "damaged.npz"], "damaged.npz: .*damaged"),
        (["spectra", "text.txt"], "text.txt: is neither an .npz nor a .safetensors"),
        (["graph", "text.txt"], "text.txt: is neither an .npz nor a .safetensors"),
        (["spectra", "net.npz", "--select", "x*"], "select: no layer matches .*x"),
        (["graph", "net.npz", "--select", "x*"], "select: no layer matches"),
        (["graph", "net.npz", "--edge", "a"], "--edge: expected FROM:TO"),
        (["graph", "net.npz", "--select", "conv*"], "conv.weight is one layer, there is nothing to join it to"),
        (["graph", "net.npz", "--select", "*.bias"], "no layer matches"),
        (["spectra", "net.npz", "-o", "t.txt"], "t.txt: expected a name that ends in .json or .csv"),
        (["graph", "net.npz", "--edge", "a:b"], "edges.*expected one of the layers"),
        (["graph", "net.npz", "--select", "conv*", "--select", "fc2*"], "edges: no layer of conv.weight, fc2.weight"),
        (["graph", "net.npz", "-o", "g.txt"], "g.txt: expected a name that ends in .json"),
        (["graph", "net.npz", "--method", "x"], "svr"),
        (["spectra", "net.npz", "--plot", "none/s.png"], "none/s.png: the folder"),
        (["spectra", "net.npz", "--convention", "mine"], "weightwatcher"),
        (["spectra"], "FILE"),
    ],
)
def test_what_spectra_and_graph_refuse(weights, capsys, words, says):
    Path("damaged.npz").write_bytes(Path("net.npz").read_bytes()[:-30])
    Path("text.txt").write_text("not weights, and long enough to be read")
    assert re.search(says, fails(capsys, *words))


def test_a_file_without_layers_says_why(tmp_path, capsys):
    np.savez(tmp_path / "w.npz", bias=np.zeros(4), steps=np.array(3))
    assert main(["spectra", str(tmp_path / "w.npz"), "--plot", str(tmp_path / "p.png")]) == 2
    said = capsys.readouterr()
    assert "not analysed, 1: one axis" in said.out
    assert "w.npz: holds no layer that can be analysed" in said.err
    assert not (tmp_path / "p.png").exists()


def test_a_missing_plotly_is_found_out_before_the_work(weights, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setattr(bk, "analyze", lambda *_, **__: pytest.fail("worked in vain"))
    assert "brockett[interactive]" in fails(capsys, "spectra", "net.npz", "--interactive", "s.html")


# ---------------------------------------------------------------------------------------------------------------- info
def test_info_says_what_runs_here(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    said, letters = " ".join(printed.split()), "".join(printed.split())
    for name, engine in bk.engines().items():
        assert f"engine {name}" in said
        if not engine.available:  # a path in it may be cut at a hyphen or a slash
            assert "".join(f"not available: {engine.reason}".split()) in letters
    assert np.__version__ in said
    assert f"threads {bk.threads()}" in said
    assert "OPENBLAS_NUM_THREADS 1" in said


def test_help_and_version(capsys):
    for words in ([], ["--help"], ["-h"], *([name, "--help"] for name in ("demo", "descramble", "spectra", "graph"))):
        assert main(words) == 0
        assert "--help" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert re.fullmatch(r"brockett (\d+\.\d+\.\d+|\(not installed\))\n", capsys.readouterr().out)


def test_importing_the_command_line_loads_no_extra():
    code = "import sys, brockett.cli; print(sorted({'typer', 'rich', 'matplotlib', 'safetensors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
