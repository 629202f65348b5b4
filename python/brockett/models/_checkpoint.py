"""PyTorch checkpoints: tensors by PyTorch's own weights-only loading, on the CPU; code in a pickle is never run."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .. import _files
from .._errors import FileFormatError, InvalidArgument
from ._given import quantized_tensor
from ._model import Tensor

__all__ = ["LEGACY_MAGIC", "checkpoint", "flat", "nested", "torch_for"]

#: How a checkpoint of PyTorch before 1.6 starts: a pickle of its magic number, 0x1950a86a20f9469cfc6c.
LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")

#: Under which keys training scripts keep the network, beside optimizers, schedules and counters.
_NESTS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "generator_state_dict",
    "params_ema", "params", "weights",
)  # fmt: skip

#: How often mappings may be in a checkpoint once more: tied networks are a few.
_MOST_REPEATED = 10_000


def torch_for(what: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"reading {what} needs PyTorch: pip install 'brockett[torch]'") from error
    return torch


def checkpoint(path: str, zipped: bool) -> list[Tensor]:
    """The tensors of a state dict, wherever in the checkpoint it lies."""
    import pickle

    torch = torch_for("PyTorch checkpoints")
    # Mapping takes the bytes as they lie: of an archive that was compressed again they are not the numbers.
    mapped = zipped and _stored(path)
    try:
        with warnings.catch_warnings():
            # PyTorch warns of its own use of its older storages, where tensors are quantized
            warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise FileFormatError(f"{path}: {_why(str(error))}") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # RuntimeError, EOFError, ValueError, KeyError, AttributeError … have been seen on damaged files.
        raise FileFormatError(f"{path}: is damaged or not a PyTorch checkpoint ({_first_line(error)})") from error
    if isinstance(found, torch.Tensor):
        return [_tensor(os.path.basename(path).rpartition(".")[0] or path, found, torch)]
    if isinstance(found, Sequence) and not isinstance(found, str | bytes):
        found = {f"layer {k}": one for k, one in enumerate(found)}
    if not isinstance(found, Mapping):
        raise FileFormatError(f"{path}: holds a {type(found).__name__}, expected a state dict")
    with _files._refuse_damage(path):
        tensors = flat(nested(found))
        if not tensors:
            keys = ", ".join(map(str, list(found)[:8]))
            raise FileFormatError(f"{path}: holds no tensors (its keys are {keys or 'none'})")
        return [_tensor(name, one, torch) for name, one in tensors]


def _stored(path: str) -> bool:
    """Whether the entries of an archive lie there as they are, as PyTorch writes them."""
    import zipfile

    with _files._refuse_damage(path), zipfile.ZipFile(path) as archive:
        squeezed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        for info in squeezed:
            if info.file_size > 1100 * max(info.compress_size, 1):
                raise ValueError(f"entry {info.filename!r} announces an impossible compression ratio")
    return not squeezed


def _why(message: str) -> str:
    """Weights-only loading names the first thing it would have to import."""
    named = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"(?:function|class|type) ([\w.]+\.[\w.]+)", message)
    if named:
        return (
            f"holds pickled Python objects ({named[1]}), which are never unpickled, since that can run any code; save "
            "module.state_dict() or safetensors instead"
        )
    return f"is damaged or holds more than tensors, and is never unpickled ({_first_line(message)})"


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _tensor(name: str, tensor: Any, torch: Any) -> Tensor:
    stored = quantized_tensor(name, tensor)
    if tensor.layout != torch.strided or tensor.device.type == "meta":  # meta: a shape and no numbers
        dtype = "meta" if tensor.device.type == "meta" else f"{tensor.layout}".removeprefix("torch.")
        return Tensor(name, stored.shape, f"{dtype} {stored.dtype}", stored.read)
    announced, there = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if announced > max(1100 * there, 1 << 26):  # by strides of 0, which any small file may have
        raise ValueError(f"{name} announces {announced} bytes, {there} are there")

    def load() -> Any:
        found = stored.read()
        if found.dtype == torch.bfloat16 or str(found.dtype).startswith("torch.float8"):
            found = found.to(torch.float32)
        return found.resolve_conj().numpy()

    return Tensor(name, stored.shape, stored.dtype, load)


def nested(found: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The state dict in a checkpoint; a mapping of another kind is returned as it is."""
    seen = {id(found)}
    while True:
        for key in _NESTS:
            inner = found.get(key)
            # {"net": {"weight": …}} is one layer that is called so; and a mapping may be in itself
            if isinstance(inner, Mapping) and "weight" not in inner and id(inner) not in seen and flat(inner):
                break
        else:
            return found
        found = inner
        seen.add(id(inner))


def flat(found: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Arrays in a mapping and the mappings in it, by their names; those of optimizers left out.

    Raises
    ------
    InvalidArgument
        Mappings that are in it more than 10,000 times over: each of n twice in the next is 2ⁿ names.
    """
    tensors: list[tuple[str, Any]] = []
    times: Counter[int] = Counter()
    above: set[int] = set()

    def add(mapping: Mapping[Any, Any], prefix: str) -> None:
        here = id(mapping)
        times[here] += 1
        if here in above:  # a mapping may be in itself
            return
        if times.total() - len(times) > _MOST_REPEATED:
            raise InvalidArgument("source", f"holds mappings that are in it more than {_MOST_REPEATED} times over")
        above.add(here)
        for key, value in mapping.items():
            name = f"{prefix}{key}"
            if hasattr(value, "shape") and hasattr(value, "dtype"):
                tensors.append((name, value))
            elif isinstance(value, Mapping) and "param_groups" not in value:  # which is what an optimizer has
                add(value, f"{name}.")
            elif isinstance(value, tuple) and name.endswith("_packed_params") and value:
                # a quantized linear layer: (weights with their scale, bias)
                owner = name.removesuffix("_packed_params").removesuffix("_packed_params.")
                pair = zip(("weight", "bias"), value, strict=False)
                tensors.extend((f"{owner}{leaf}", one.detach()) for leaf, one in pair if hasattr(one, "detach"))
        above.discard(here)

    add(found, "")
    return tensors
