"""From named tensors to layers: what the names of PyTorch's state dicts, and of files made from them, say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _arrays, _graph_layers
from ._model import Layer, Norm, Resource, Tensor, conv_kind, why_declined
from ._quantized import block_size, dequantized

__all__ = ["SPLITS", "Owner", "exchanged", "layers_of", "parts_of", "plain_names"]

#: What `load(split=…)` may name.
SPLITS = ("gates", "qkv")

_KINDS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}
_RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(?:_reverse)?)?")
#: Rows of PyTorch's stacked recurrent weights, in order.
_GATES = {4: "ifgo", 3: "rzn"}
_QKV = {"c_attn", "qkv", "qkv_proj", "query_key_value", "Wqkv", "to_qkv"}
#: Layers of GPT-2 that transformers stores as (in, out).
_GPT2 = {"c_attn", "c_fc", "c_proj", "q_attn"}
_EMBEDDING = re.compile(r"(?:^|_)(?:emb|embed|embeddings?|wte|wpe|embed_tokens|embed_positions)$")
_TOKEN = re.compile(r"(?:embed\w*|emb|tokens?)$")
_NORM = re.compile(r"(?i)norm|(?:^|_)(?:bn|ln)")
_STATE = re.compile(
    r"(?:^|[./])(?:exp_avg|exp_avg_sq|max_exp_avg_sq|exp_avg_diff|exp_inf|momentum_buffer|square_avg|grad_avg|acc_delta)"
    r"(?:$|[./])|^(?:\w+_)?optim(?:izer)?s?(?:_states?)?(?:_dict)?[./]"
)
_PARAMETRIZED = re.compile(r"(?:^|\.)parametrizations\.\w+\.")
_INTEGERS = ("i8", "u8", "int8", "uint8", "|i1", "|u1")


@dataclass(frozen=True)
class Owner:
    """What the module that owns a tensor says of it, where there is a module.

    `kind` is "embedding", "norm" or "" (told by the shape); `transposed` weights are (in, out / groups, k…), those with
    `input_first` (in, out).
    """

    kind: str = ""
    groups: int = 1
    transposed: bool = False
    input_first: bool = False
    eps: float = 1e-5


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Names without what wrappers put before them: DataParallel's "module." (of all), torch.compile's "_orig_mod."."""
    given = list(names)
    plain = [".".join(part for part in name.split(".") if part != "_orig_mod") for name in given]
    while plain and all(name.startswith("module.") for name in plain):
        plain = [name.removeprefix("module.") for name in plain]
    return dict(zip(given, plain if len(set(plain)) == len(given) else given, strict=True))


def layers_of(
    entries: Sequence[tuple[Tensor, Owner | None] | Layer],
    resource: Resource,
    *,
    ordered: bool,
    split: Sequence[str] = (),
) -> list[Layer]:
    """Layers of named tensors, each with the tensors that belong to it.

    Parameters
    ----------
    entries : sequence of (Tensor, Owner or None), or Layer
        Layers are passed on, in their place.
    resource : Resource
    ordered : bool
        Whether the order is that of the modules, or says nothing.
    split : sequence of str
        Of SPLITS.
    """
    return _Reading(entries, resource, split).layers(ordered)


class _Reading:
    def __init__(
        self, entries: Sequence[tuple[Tensor, Owner | None] | Layer], resource: Resource, split: Sequence[str]
    ) -> None:
        self.resource, self.split = resource, split
        entries = _pruned(entries)
        self.entries: list[str | Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.owners: dict[str, Owner] = {}
        plain = plain_names(dict.fromkeys(one[0].name for one in entries if not isinstance(one, Layer)))
        times: Counter[str] = Counter()
        for one in entries:
            if isinstance(one, Layer):
                self.entries.append(one)
                continue
            name = plain[one[0].name]
            times[name] += 1
            if times[name] > 1:  # archives may have an entry twice, and {"a.b": …, "a": {"b": …}} is one name
                name = f"{name} ({times[name]})"
            self.entries.append(name)
            self.tensors[name] = replace(one[0], name=name)
            if one[1] is not None:
                self.owners[name] = one[1]
        self.titles = {_title(name): name for name in reversed(self.tensors)} | {name: name for name in self.tensors}
        self.input_first = self._gpt2()
        self.parametrized = Counter(name.partition("parametrizations.weight.")[0] for name in self.tensors
                                    if "parametrizations.weight." in name)  # fmt: skip

    # --- which tensors belong together --------------------------------------------------------------------------------

    def layers(self, ordered: bool) -> list[Layer]:
        parts = {name: self._parts(name) for name in self.tensors}
        absorbed = {one for found in parts.values() if found for role, one in found.items() if role != "weight"}
        layers: list[Layer] = []
        for entry in self.entries:
            if isinstance(entry, Layer):
                layers.append(entry)
            elif entry not in absorbed:
                layers += self._layer(entry, parts[entry] or {"weight": entry})
        return self._with_norms(layers, ordered)

    def _there(self, roles: Mapping[str, str]) -> dict[str, str]:
        return {role: name for role, name in roles.items() if name in self.tensors}

    def _parts(self, name: str) -> dict[str, str] | None:
        """Names of the tensors of the layer whose weights have this name, by role; None where it is no weight."""
        owner, _, leaf = name.rpartition(".")

        def at(*leaves: str) -> str:
            return ".".join(part for part in (owner, *leaves) if part)

        def has(leaf: str) -> bool:
            return at(leaf) in self.tensors

        if leaf == "weight_orig" and has("weight_u") and has("weight_v"):
            return self._there({"weight": name, "u": at("weight_u"), "v": at("weight_v"), "bias": at("bias")})
        if leaf == "weight_v" and has("weight_g") and not has("weight_orig"):
            return self._there({"weight": name, "g": at("weight_g"), "bias": at("bias")})
        if owner.endswith("parametrizations.weight"):
            bias = ".".join(
                part for part in (owner.removesuffix("parametrizations.weight").rstrip("."), "bias") if part
            )
            # One parametrization; of another one after it only what it stores is seen here.
            stored = self.parametrized[owner.removesuffix("parametrizations.weight")]
            if leaf == "original1" and has("original0") and stored == 2:
                return self._there({"weight": name, "g": at("original0"), "bias": bias})
            if leaf == "original" and has("0._u") and has("0._v") and stored == 3:
                return self._there({"weight": name, "u": at("0._u"), "v": at("0._v"), "bias": bias})
            return None
        if _RECURRENT.fullmatch(leaf):
            return self._there({"weight": name, "bias": at(leaf.replace("weight", "bias"))})
        if leaf == "in_proj_weight":
            return self._there({"weight": name, "bias": at("in_proj_bias")})
        statistics = {role: at(role) for role in ("running_mean", "running_var", "num_batches_tracked")}
        if leaf == "weight":
            found = {"weight": name} | self._scale(name, at)
            if len(self.tensors[name].shape) == 1:
                return found | self._there({"bias": at("bias")} | statistics)
            return found | (self._there({"bias": at("bias")}) if self._fits(at("bias"), name) else {})
        if leaf == "running_mean" and has("running_var") and not has("weight"):
            return self._there({"weight": name, **{role: one for role, one in statistics.items() if one != name}})
        return None

    def _scale(self, name: str, at: Callable[..., str]) -> dict[str, str]:
        """Scale and zero point of weights in 8 bits, as compressed-tensors, bitsandbytes and others name them."""
        word = self.tensors[name].dtype.lower()
        if not word.startswith(("f8_", "float8")) and word not in _INTEGERS:
            return {}
        for leaf in ("weight_scale", "weight_scale_inv", "scales", "SCB"):
            if at(leaf) in self.tensors:
                zeros = {"zero_point": at("weight_zero_point")} if leaf == "weight_scale" else {}
                return {"scale": at(leaf)} | self._there(zeros)
        return {}

    def _fits(self, bias: str, weight: str) -> bool:
        return bias in self.tensors and self.tensors[bias].shape == (self._oriented(weight)[0],)

    def _gpt2(self) -> set[str]:
        """Owners of weights (in, out): GPT-2's, where the biases of those that are not square show it."""
        pairs = {}
        for name, tensor in self.tensors.items():
            owner, _, leaf = name.rpartition(".")
            bias = self.tensors.get(f"{owner}.bias")
            if leaf == "weight" and owner.rpartition(".")[2] in _GPT2 and bias is not None and len(tensor.shape) == 2:
                pairs[name] = (tensor.shape, bias.shape)
        telling = {bias == (shape[1],) for shape, bias in pairs.values() if shape[0] != shape[1]}
        return set(pairs) if telling == {True} else set()

    def _oriented(self, name: str) -> tuple[int, ...]:
        """Shape (out, in / groups, k…)."""
        shape, owner = self.tensors[name].shape, self.owners.get(name, Owner())
        if owner.input_first or name in self.input_first:
            return shape[::-1]
        if owner.transposed and len(shape) > 2:
            return (shape[1] * owner.groups, shape[0] // owner.groups, *shape[2:])
        return shape

    # --- one layer ----------------------------------------------------------------------------------------------------

    def _layer(self, name: str, roles: Mapping[str, str]) -> list[Layer]:
        tensor = self.tensors[name]
        tensors = {role: self.tensors[one] for role, one in roles.items()}
        owner = self.owners.get(name, Owner())
        shape, dtype = self._oriented(name), tensor.dtype
        load = tensor.read
        declined = why_declined(shape, dtype)
        if _STATE.search(name):
            declined = "state of an optimizer, no weights"
        elif "scale" in tensors:
            load, declined = self._dequantized(tensors, roles["scale"], declined)
        elif "g" in tensors:
            load = _weight_normed(tensor, tensors["g"])
        elif "u" in tensors:
            load = _spectrally_normed(tensor, tensors["u"], tensors["v"], owner.transposed)
        elif _PARAMETRIZED.search(name):
            declined = declined or "what a parametrization that is not known here makes the weights of"
        elif len(shape) == 3 and shape[0] == 1 and _TOKEN.search(name):
            declined = "a table of tokens or positions, no layer"
        if owner.input_first or name in self.input_first:
            load = _turned(load)
        elif owner.transposed and len(shape) > 2:
            load = _exchanged(load, owner.groups)
        title = _title(name) if "g" in tensors or "u" in tensors else name
        kind = self._kind(title, shape, owner, tensors)
        if declined and kind in _KINDS.values() and not title.endswith("weight"):
            kind = ""
        bias = tensors["bias"].read if "bias" in tensors and len(shape) > 1 else None
        whole = Layer(title, kind, shape, dtype, owner.groups, declined, None, tensors, load, bias, self.resource)
        letters = "" if declined else self._letters(name, kind, shape)
        return (
            parts_of(whole, letters, f"{kind} gate" if kind == "recurrent" else f"{kind} part") if letters else [whole]
        )

    def _kind(self, name: str, shape: tuple[int, ...], owner: Owner, tensors: Mapping[str, Tensor]) -> str:
        path, _, leaf = name.rpartition(".")
        last = path.rpartition(".")[2]
        if owner.kind:
            return owner.kind
        if _RECURRENT.fullmatch(leaf):
            return "recurrent"
        if len(shape) == 1:
            # PReLU has weights of one axis, too
            normal = "bias" in tensors or "running_var" in tensors or _NORM.search(last)
            return "norm" if leaf in ("weight", "running_mean") and normal else leaf if leaf == "bias" else ""
        if len(shape) == 2 and (leaf == "in_proj_weight" or (leaf == "weight" and last in _QKV)):
            return "qkv"
        if len(shape) == 2 and (_EMBEDDING.search(last if leaf == "weight" else leaf)):
            return "embedding"
        if len(shape) > 2 and len(shape) in _KINDS:
            return conv_kind(len(shape) - 2, owner.groups, shape[1] * owner.groups, owner.transposed)
        return _KINDS.get(len(shape), "")

    def _letters(self, name: str, kind: str, shape: tuple[int, ...]) -> str:
        """The parts that stacked weights are split into, if that is asked for and certain."""
        owner, _, leaf = name.rpartition(".")
        if kind == "recurrent" and "gates" in self.split:
            suffix = (_RECURRENT.fullmatch(leaf) or [""] * 3)[2] or ""
            at = f"{owner}." if owner else ""
            hidden = self.tensors.get(f"{at}weight_hh{suffix}")
            projection = self.tensors.get(f"{at}weight_hr{suffix}")
            if leaf.startswith("weight_hr") or hidden is None or len(hidden.shape) != 2 or 0 in hidden.shape:
                return ""
            state = projection.shape[-1] if projection is not None else hidden.shape[1]
            return _GATES.get(shape[0] // state, "") if shape[0] % state == 0 else ""
        if kind == "qkv" and "qkv" in self.split and shape[0] == 3 * shape[1]:
            return "qkv" if leaf == "in_proj_weight" or name in self.input_first else ""
        return ""

    def _dequantized(
        self, tensors: Mapping[str, Tensor], scale_name: str, declined: str
    ) -> tuple[Callable[[], Any], str]:
        weight, scale, zero = tensors["weight"], tensors["scale"], tensors.get("zero_point")
        size = block_size(weight.shape, scale.shape, scale_name.endswith("_inv"))
        if len(weight.shape) < 2 or 0 in weight.shape:
            return weight.read, declined
        if size is None or (zero is not None and zero.shape not in (scale.shape, (), (1,))):
            return weight.read, f"{weight.dtype} with a scale of shape {scale.shape}: a layout that is not known here"
        return dequantized(weight, scale, zero, size, 127.0 if scale_name.endswith("SCB") else 1.0), ""

    # --- normalizations -----------------------------------------------------------------------------------------------

    def _with_norms(self, layers: list[Layer], ordered: bool) -> list[Layer]:
        """Each batch normalization given to the layer that it follows.

        In the order of the modules it is the next one under the same parent; numbered modules must be neighbours.
        Without an order it is the one of the same number: bn1 of conv1, or 1 of 0.
        """
        norms = {_path(one): one for one in layers if {"running_mean", "running_var"} <= _statistics(one)}
        # Normalized before the convolution (bn1 is that of its inputs): names say nothing then.
        named = not ordered and not any(self._comes_before(one, norms) for one in layers)
        found: list[Layer] = []
        for k, layer in enumerate(layers):
            follows = None
            if (
                len(layer.shape) > 1
                and not layer.declined
                and not layer.kind.startswith(("embedding", "recurrent", "qkv"))
            ):
                after = (
                    layers[k + 1 : k + 2]
                    if ordered
                    else [norms[p] for p in _followers(_path(layer), named) if p in norms]
                )
                follows = next((one for one in after if self._follow(layer, one, norms)), None)
            found.append(layer if follows is None else replace(layer, norm=self._norm(follows)))
        return found

    def _follow(self, layer: Layer, norm: Layer, norms: Mapping[str, Layer]) -> bool:
        first, second = _path(layer).rpartition("."), _path(norm).rpartition(".")
        numbered = first[2].isdigit() and second[2].isdigit()
        return (
            _path(norm) in norms
            and first[0] == second[0]
            and norm.shape == (layer.shape[0],)
            and (not numbered or int(second[2]) == int(first[2]) + 1)
        )

    def _comes_before(self, layer: Layer, norms: Mapping[str, Layer]) -> bool:
        if len(layer.shape) < 2:
            return False
        if _path(layer).rpartition(".")[2].isdigit():
            return False
        like = [norms[path] for path in _followers(_path(layer), True) if path in norms]
        return any(one.shape == (layer.shape[1] * layer.groups,) != (layer.shape[0],) for one in like)

    def _norm(self, layer: Layer) -> Norm:
        name = self.titles[layer.name]
        tensors = dict(layer.tensors)
        if layer.name.endswith("running_mean"):  # without γ and β
            tensors["running_mean"] = tensors.pop("weight")
        return Norm(layer.name, self.owners.get(name, Owner()).eps, tensors, self.resource)


def _pruned(entries: Sequence[tuple[Tensor, Owner | None] | Layer]) -> list[tuple[Tensor, Owner | None] | Layer]:
    """What torch.nn.utils.prune stores in two, weight_orig and weight_mask, as the product that layers work with."""
    there = {one[0].name: one[0] for one in entries if not isinstance(one, Layer)}
    masks = {}
    for name, tensor in there.items():
        base = name.removesuffix("_orig")
        mask = there.get(f"{base}_mask")
        if base != name and base not in there and mask is not None and mask.shape == tensor.shape:
            masks[name] = mask
    stored = masks.keys() | {mask.name for mask in masks.values()}
    found: list[tuple[Tensor, Owner | None] | Layer] = []
    for one in entries:
        if isinstance(one, Layer) or one[0].name not in stored:
            found.append(one)
        elif one[0].name in masks:
            tensor, mask = one[0], masks[one[0].name]
            whole = replace(tensor, name=tensor.name.removesuffix("_orig"), read=_masked(tensor, mask))
            found.append((whole, one[1]))
    return found


def _title(name: str) -> str:
    """A parametrized weight has the name of the weight."""
    if ".parametrizations.weight." in f".{name}":
        return (f".{name}".partition(".parametrizations.weight.")[0] + ".weight").lstrip(".")
    return re.sub(r"(?:^|(?<=\.))weight_(?:v|orig)$", "weight", name)


def _path(layer: Layer) -> str:
    """The module of a layer."""
    return layer.name.rpartition(".")[0]


def _statistics(layer: Layer) -> set[str]:
    found = set(layer.tensors)
    return found | {"running_mean"} if layer.name.endswith("running_mean") and "running_var" in found else found


def _followers(path: str, named: bool) -> list[str]:
    """Modules where the normalization of a layer may be: the next number of a number; by name, bn1 of conv1."""
    parent, dot, last = path.rpartition(".")
    if last.isdigit():
        return [f"{parent}{dot}{int(last) + 1}"]
    found = re.fullmatch(r"(?:conv|fc|linear|lin|deconv)(\w*)", last) if named else None
    return [f"{parent}{dot}{word}{found[1]}" for word in ("bn", "norm", "batchnorm", "batch_norm")] if found else []


# --- arrays of any library --------------------------------------------------------------------------------------------


def parts_of(whole: Layer, letters: Sequence[str], kind: str, length: int | None = None) -> list[Layer]:
    """Stacked weights (parts · n, in) as a layer for each part: "name[i]"."""
    rows = whole.shape[0] // len(letters) if length is None else length

    def part(k: int, letter: str) -> Layer:
        at = slice(k * rows, (k + 1) * rows)
        load, bias = whole._weight, whole._bias
        return replace(
            whole,
            name=f"{whole.name}[{letter}]",
            kind=kind,
            shape=(rows, *whole.shape[1:]),
            _weight=lambda: load()[at],
            _bias=None if bias is None else lambda: bias()[at],
        )

    return [part(k, letter) for k, letter in enumerate(letters)]


def exchanged(weight: Any, groups: int) -> Any:
    """Weights (in, out / groups, k…) of a transposed convolution as (out, in / groups, k…), in their own library."""
    operand = _graph_layers.exchanged(_arrays.accept(weight, "weight"), groups)
    return operand.space.back(operand.array)


def _exchanged(load: Callable[[], Any], groups: int) -> Callable[[], Any]:
    return lambda: exchanged(load(), groups)


def _turned(load: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: load().T


def _weight_normed(direction: Tensor, length: Tensor) -> Callable[[], Any]:
    """g v / ‖v‖ (Salimans, Kingma, arXiv 1602.07868); the axes on which g has one entry are those of the norm."""

    def load() -> Any:
        (v, dtype), (g, _) = _host64(direction), _host64(length)
        g = g.reshape(*g.shape, *(1,) * (v.ndim - g.ndim))
        axes = tuple(axis for axis, n in enumerate(g.shape) if n == 1)
        return (g * v / np.sqrt(np.sum(v * v, axis=axes, keepdims=True))).astype(dtype)

    return load


def _spectrally_normed(weight: Tensor, left: Tensor, right: Tensor, transposed: bool) -> Callable[[], Any]:
    """W / σ, σ = uᵀ W v with the vectors that training has kept (Miyato et al., arXiv 1802.05957).

    Rows of W are the outputs, the second axis of a transposed convolution. Where both axes fit and a file does not say
    which it is, u = W v / ‖W v‖ does, which training makes it.
    """

    def load() -> Any:
        (W, dtype), (u, _), (v, _) = _host64(weight), _host64(left), _host64(right)
        image = W.reshape(len(W), -1) @ v if len(W) == u.size else None
        if W.ndim > 1 and W.shape[1] == u.size:
            other = W.swapaxes(0, 1).reshape(u.size, -1) @ v
            if image is None or transposed or (W.ndim > 2 and u @ other > 0.9 * np.linalg.norm(other)):
                image = other
        return (W / (u @ image)).astype(dtype)

    return load


def _masked(weight: Tensor, mask: Tensor) -> Callable[[], Any]:
    """Weights times the mask of those that pruning has kept."""

    def load() -> Any:
        (W, dtype), (kept, _) = _host64(weight), _host64(mask)
        return (W * kept).astype(dtype)

    return load


def _host64(tensor: Tensor) -> tuple[Any, str]:
    """In host memory as float64, and the dtype of results."""
    operand = _arrays.accept(tensor.read(), tensor.name)
    return operand.host().astype(np.float64), operand.dtype
