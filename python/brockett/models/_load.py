"""`load`: whatever holds a network, told by what it is and not by what it is called, to its layers."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _options
from .._errors import FileFormatError, InvalidArgument, InvalidType
from . import _given, _names, _tensor_files
from ._checkpoint import LEGACY_MAGIC, checkpoint, flat, nested
from ._model import Layer, Model, Resource, Tensor, matches, some, uniquely_named

__all__ = ["is_source", "load", "open_model"]

_ZIP, _EMPTY_ZIP, _HDF5, _NPY = b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"
_INDEX = (".safetensors.index.json", ".bin.index.json")
#: What a folder may hold, best first; of the later ones a single file.
_IN_FOLDERS = ("*.safetensors", "pytorch_model*.bin", "*.onnx", "*.keras", "*.h5", "*.pt", "*.pth", "*.npz")


def load(
    source: Any,
    *,
    select: str | Sequence[str] | None = None,
    split: str | Sequence[str] = ("gates",),
    fold_norm: bool = False,
) -> Model:
    """The layers of a network: from a checkpoint on disk, a PyTorch module, or weights in memory.

    Parameters
    ----------
    source : path, torch.nn.Module, mapping of str to weights, or sequence of weights
        A file is known by its contents: safetensors, `.npz`, `.npy`, ONNX, Keras (`.h5`, `.weights.h5`, `.keras`), or a
        PyTorch checkpoint (`.pt`, `.pth`, `.bin`), which is loaded weights-only. An index of shards (safetensors or
        PyTorch), or a folder that holds a model, does as well. Weights are arrays (out, in) or (out, in / groups, k…),
        or mappings with ``weight`` and optionally ``bias``, ``norm``, ``groups`` and ``transposed``, as in
        `spectral_graph`.
    select : str or sequence of str, optional
        Only layers whose names are, or match, one of these patterns (``"encoder.*"``).
    split : str or sequence of {"gates", "qkv"}, default ("gates",)
        Which stacked weights come as one layer for each part: "gates" of recurrent layers (i, f, g, o and r, z, n in
        PyTorch; i, o, f, c and z, r, h in ONNX; i, f, c, o and z, r, h in Keras), "qkv" of attention's input
        projections where their layout is certain (PyTorch's in_proj_weight, GPT-2's c_attn). ``()`` leaves all stacked.
    fold_norm : bool, default False
        Fold the batch normalization that follows a layer into its weights and bias (`convolution.fold_batch_norm`).

    Returns
    -------
    model : Model
        A sequence of `Layer`, also by name; nothing is read before a layer's `weight` is asked for. A context manager.

    Raises
    ------
    FileFormatError
        A file that is damaged, of another kind, or would have to be unpickled; a shard outside the folder of its index.
    InvalidArgument, InvalidType
        No layers, none that matches, or something that has none.
    ImportError
        The library that reads the format is not installed; the message has the line for pip.
    OSError
        The file cannot be opened.

    Notes
    -----
    Tensors that are no layers (integers, scalars, state of an optimizer) are kept with the reason in `Layer.declined`;
    biases, statistics and scales belong to their layer. Quantized weights are read as the numbers they stand for where
    the scale lies beside them by a known convention: ONNX's DequantizeLinear and QLinear operators, PyTorch's quantized
    modules, ``weight_scale``, ``weight_scale_inv``, ``scales`` and ``SCB``. Pruned weights (``weight_orig`` and
    ``weight_mask`` of torch.nn.utils.prune) are read as their product. Parametrized weights of a module are what it
    computes in evaluation mode; files and state dicts tell only weight_norm and spectral_norm, alone.

    Which normalization follows which layer is exact for ONNX and for Keras files with the model. Where there are only
    names or an order, it is the next module under the same parent with as many channels (modules and checkpoints), or
    the one of the same number (safetensors, whose order is lost: bn1 of conv1).

    Memory is that of the layer being read: safetensors, `.npy` and PyTorch's zip files are mapped, entries of `.npz`
    and HDF5 read one at a time. The message of an ONNX file (2 GiB at most, without external data) and a `.keras`
    archive are read whole.

    Examples
    --------
    >>> import numpy as np, brockett as bk
    >>> rng = np.random.default_rng(0)
    >>> state = {"fc.weight": rng.normal(size=(3, 2)), "fc.bias": np.ones(3), "steps": np.array(7)}
    >>> with bk.models.load(state) as model:
    ...     [(layer.name, layer.kind, layer.shape, layer.declined[:15]) for layer in model]
    [('fc.weight', 'linear', (3, 2), ''), ('steps', '', (), 'int64: integers')]
    >>> model = bk.models.load(state)
    >>> bk.singular_values(model["fc.weight"].weight).shape, model["fc.weight"].bias
    ((2,), array([1., 1., 1.]))
    """
    model = open_model(source, "source", split=split, fold_norm=fold_norm)
    return model if select is None else model.select(select)


def is_source(layers: Any) -> bool:
    """Whether this is a file, a module or a model, and not a list or mapping of layers."""
    torch = sys.modules.get("torch")
    return isinstance(layers, str | os.PathLike | Model) or (torch is not None and isinstance(layers, torch.nn.Module))


def open_model(
    source: Any, argument: str, *, split: str | Sequence[str] = ("gates",), fold_norm: bool = False
) -> Model:
    """`load`, with the name of the argument that its messages speak of; a Model is passed on."""
    if isinstance(source, Model):
        return source
    words = [split] if isinstance(split, str) else list(split)
    for word in words:
        _options.option("split", word, _names.SPLITS)
    fold = _options.flag("fold_norm", fold_norm)
    torch = sys.modules.get("torch")
    edges: list[tuple[str, str]] | None = None
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        resource = Resource(path)
        layers, edges = _of_path(path, resource, words)
        if not layers:
            raise FileFormatError(f"{path}: holds no arrays")
    else:
        resource = Resource(argument)
        if torch is not None and isinstance(source, torch.nn.Module):
            resource.source = type(source).__name__
            entries = _given.module_entries(source, torch, argument)
        elif isinstance(source, Mapping):
            if "weight" in source and not isinstance(source["weight"], Mapping) and _one_layer(source):
                raise InvalidType(argument, "is one layer; expected a mapping of names to layers, or a list of them")
            inner = nested(source)
            values = source if inner is source else dict(flat(inner))
            entries = _given.value_entries({str(name): one for name, one in values.items()}, argument, resource)
        elif isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
            numbered = {f"layer {k}": one for k, one in enumerate(source)}
            entries = _given.value_entries(numbered, argument, resource)
        else:
            raise InvalidType(
                argument,
                "expected a mapping of names to weights, a list of weights, the path of a model, or a torch.nn.Module, "
                f"got {type(source).__name__}",
            )
        layers = _names.layers_of(entries, resource, ordered=True, split=words)
        if not layers:
            raise InvalidArgument(argument, "expected at least one layer, got none")
    if fold:
        layers = [layer.with_norm_folded() for layer in layers]
    return Model(uniquely_named(layers), resource, edges)


def _one_layer(mapping: Mapping[Any, Any]) -> bool:
    """What describes one layer has a weight and no other names than those that a layer has."""
    return set(mapping) <= {"weight", "bias", "norm", "groups", "transposed", "name"}


# --- files ------------------------------------------------------------------------------------------------------------


def _of_path(path: str, resource: Resource, split: Sequence[str]) -> tuple[list[Layer], list[tuple[str, str]] | None]:
    if os.path.isdir(path):
        path = _in_folder(path)
        resource.source = path
    if path.endswith(_INDEX):
        tensors, ordered = _shards(path, resource), path.endswith(_INDEX[1])
        return _names.layers_of([(one, None) for one in tensors], resource, ordered=ordered, split=split), None
    kind = _kind(path)
    if kind == "onnx":
        from ._onnx import onnx_layers

        return onnx_layers(path, resource, split)
    if kind in ("hdf5", "keras"):
        from ._keras import keras_layers

        return keras_layers(path, resource, split, zipped=kind == "keras")
    tensors = _tensors(path, kind, resource)
    entries = [(one, None) for one in tensors]
    return _names.layers_of(entries, resource, ordered=kind != "safetensors", split=split), None


def _tensors(path: str, kind: str, resource: Resource) -> list[Tensor]:
    if kind == "npy":
        return _tensor_files.npy(path)
    if kind == "npz":
        return _tensor_files.npz(path, resource)
    if kind == "safetensors":
        return _tensor_files.safetensors(path, resource)
    return checkpoint(path, zipped=kind == "torch zip")


def _kind(path: str) -> str:
    """What a file is, by its first bytes."""
    with open(path, "rb") as file:
        head = file.read(16)
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    if head.startswith(_EMPTY_ZIP):
        raise FileFormatError(f"{path}: is an empty archive, it holds no arrays")
    if len(head) >= 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= _tensor_files.HEADER_LIMIT:
        return "safetensors"
    if head.startswith(_HDF5):
        return "hdf5"
    if head.startswith(_NPY):
        return "npy"
    if head.startswith(b"\x80") and LEGACY_MAGIC in head:
        return "torch legacy"
    # A protobuf has no magic number; a model starts with the field of its version, or is known by its name.
    if (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42")) or (
        path.endswith(".onnx") and head
    ):
        return "onnx"
    what = "it is empty" if not head else f"it starts with {head!r}"
    if head.startswith(b"\x80"):
        what = "it looks like a pickle, which is never loaded"
    elif head.startswith(b"GGUF"):
        what = "it is GGUF, whose weights are quantized in blocks"
    elif len(head) >= 9 and head[8:9] == b"{":
        what = f"a header of {struct.unpack('<Q', head[:8])[0]} bytes is no safetensors header"
    raise FileFormatError(
        f"{path}: is neither an .npz nor a .safetensors file, nor ONNX, Keras or a PyTorch checkpoint ({what})"
    )


def _kind_of_zip(path: str) -> str:
    import zipfile

    from .. import _files

    with _files._refuse_damage(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith("/constants.pkl") or name == "constants.pkl" for name in names):
        raise FileFormatError(
            f"{path}: is a TorchScript program, which holds code and is never run; save its state_dict() or safetensors"
        )
    if any(name.endswith("data.pkl") for name in names):
        return "torch zip"
    held = f"its entries are {some(names)}" if names else "it is empty"
    raise FileFormatError(f"{path}: is an archive that holds no arrays ({held})")


def _in_folder(path: str) -> str:
    """The one model of a folder."""
    folder = Path(path)
    indices = sorted(str(one) for suffix in _INDEX for one in folder.glob(f"*{suffix}"))
    if indices:
        preferred = [one for one in indices if one.endswith(_INDEX[0])] or indices
        return _only(path, preferred)
    for pattern in _IN_FOLDERS:
        found = sorted(str(one) for one in folder.glob(pattern))
        if found:
            standard = [one for one in found if os.path.basename(one) in ("model.safetensors", "pytorch_model.bin")]
            return standard[0] if standard else _only(path, found)
    raise FileFormatError(f"{path}: this folder holds no model; it has {some(sorted(os.listdir(path))) or 'nothing'}")


def _only(folder: str, paths: Sequence[str]) -> str:
    if len(paths) > 1:
        names = some([os.path.basename(one) for one in paths])
        raise FileFormatError(f"{folder}: this folder holds several models ({names}): name one of them")
    return paths[0]


def _shards(path: str, resource: Resource) -> list[Tensor]:
    """The tensors that an index distributes over files beside it."""
    if os.path.getsize(path) > _tensor_files.HEADER_LIMIT:
        raise FileFormatError(f"{path}: {os.path.getsize(path)} bytes are no index of shards")
    try:
        with open(path, encoding="utf-8") as file:
            places = json.load(file)["weight_map"]
        if not isinstance(places, dict) or not all(isinstance(one, str) for one in places.values()):
            raise ValueError("its weight_map maps no names to files")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileFormatError(f"{path}: is no index of shards ({error})") from error
    there: dict[str, Tensor] = {}
    for shard in dict.fromkeys(places.values()):
        if shard in ("", ".", "..") or os.path.basename(shard) != shard or "\\" in shard or "\0" in shard:
            raise FileFormatError(f"{path}: names the shard {shard!r}, expected a file beside the index")
        whole = os.path.join(os.path.dirname(path), shard)
        kind = _kind(whole)
        if kind not in ("safetensors", "torch zip", "torch legacy"):
            raise FileFormatError(
                f"{path}: the shard {shard!r} is {kind}, expected safetensors or a PyTorch checkpoint"
            )
        wanted = {name for name, one in places.items() if one == shard}
        there |= {one.name: one for one in _tensors(whole, kind, resource) if one.name in wanted}
        missing = sorted(wanted - set(there))
        if missing:
            raise FileFormatError(f"{path}: {shard} does not hold {some(missing)}")
    return [there[name] for name in sorted(there, key=_tensor_files.natural)]


def chosen_layers(model: Model, select: str | Sequence[str] | None) -> list[Layer]:
    """Layers with weights that are selected, or an error with what there is."""
    there = [layer for layer in model if not layer.declined]
    if not there:
        raise InvalidArgument("layers", "holds no weights of layers")
    chosen = [layer for layer in there if matches(layer.name, select)]
    if not chosen:
        raise InvalidArgument("select", f"no layer matches {select!r}; there are {some([one.name for one in there])}")
    return chosen
