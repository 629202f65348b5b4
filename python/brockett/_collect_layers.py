"""The layers of a torch module that `collect` knows, what each is given and gives, and the hooks that see it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._autocorrelation import Autocorrelation
from ._errors import InvalidArgument, InvalidType, Unsupported
from ._patch_autocorrelation import PatchAutocorrelation

__all__ = ["Site", "Watch", "chosen_sites", "slow_attention"]

_EMBEDDING = "the inputs of an embedding are indices, whose autocorrelation is a table of their frequencies"
_RECURRENT = (
    "the weights of a recurrent layer meet its inputs and states inside one kernel, which no hook sees; a cell that is "
    "made of linear layers can be collected"
)

#: Why layers of other kinds are not collected, by the name of a class among their bases.
_REASONS = {
    "Embedding": _EMBEDDING,
    "EmbeddingBag": _EMBEDDING,
    "_ConvTransposeNd": "a transposed convolution spreads each position of its input and sees no patches of it; what "
    "it is given are the activations of the layer before it",
    "Conv3d": "patches are taken of images and sequences, not of volumes",
    "Bilinear": "a bilinear layer is not linear in its inputs taken together",
    "RNNBase": _RECURRENT,
    "RNNCellBase": _RECURRENT,
    "MultiheadAttention": "of attention its inputs are collected; its outputs are those of its out_proj",
}


@dataclass(frozen=True)
class Site:
    """A place in a module whose samples go into one accumulator.

    Attributes
    ----------
    name : str
        Its name in the result.
    kind : str
        Class of the layer.
    layer : torch.nn.Module
        Whose weights they meet.
    owner : torch.nn.Module
        Whose calls are watched: the layer, but for what an attention module computes with its parts' weights.
    part : {"input", "output", "query", "key", "value", "context"}
        What of a call is taken.
    make : callable
        ``make(center, method, precision)`` gives its empty accumulator.
    rows : callable
        A tensor of the call as that accumulator takes it.
    also : tuple of str
        Other names of the same.
    """

    name: str
    kind: str
    layer: Any
    owner: Any
    part: str
    make: Callable[[bool, str, str], Autocorrelation]
    rows: Callable[[Any], Any]
    also: tuple[str, ...] = ()

    def device(self) -> str:
        """Where its samples will be, as far as its parameters tell."""
        device = next((parameter.device for parameter in self.layer.parameters()), None)
        if device is None:
            device = next((parameter.device for parameter in self.owner.parameters()), None)
        return "cpu" if device is None or device.type == "meta" else str(device)


def chosen_sites(module: Any, layers: Sequence[str] | None, of: str, torch: Any) -> list[Site]:
    """The sites that were asked for, in the module's order; each place once."""
    if not isinstance(module, torch.nn.Module):
        raise InvalidType("module", f"expected a torch.nn.Module, got {type(module).__name__}")
    every = _sites(module, of, torch)
    first: dict[tuple[int, str], str] = {}
    for name, site in every.items():
        first.setdefault((id(site.layer), site.part), name)
    if layers is None:
        names = set(first.values())
        if not names:
            raise InvalidArgument("module", _none_of(module))
    else:
        names = _named(module, layers, every, torch)
    same: dict[tuple[int, str], list[str]] = {}
    for name, site in every.items():
        same.setdefault((id(site.layer), site.part), []).append(name)
    found = []
    taken: dict[tuple[int, str], str] = {}
    for name in every:
        if name not in names:
            continue
        site = every[name]
        key = (id(site.layer), site.part)
        if key in taken:
            raise InvalidArgument("layers", f"{taken[key]!r} and {name!r} are one and the same module: name it once")
        taken[key] = name
        _check_initialized(site, torch)
        found.append(replace(site, also=tuple(other for other in same[key] if other != name)))
    return found


def _sites(module: Any, of: str, torch: Any) -> dict[str, Site]:
    """All that can be collected, under every name it has."""
    nn = torch.nn
    attention: dict[int, Any] = {}  # the attention module of an out_proj
    sites: dict[str, Site] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        kind, inputs = type(layer).__name__, of == "inputs"
        if _is_plain_attention(layer, nn):
            if isinstance(layer.out_proj, nn.Linear):
                attention[id(layer.out_proj)] = layer
            widths = {"query": layer.embed_dim, "key": layer.kdim, "value": layer.vdim}
            for part, width in widths.items() if inputs else ():
                full = f"{name}.{part}" if name else part
                sites[full] = Site(full, kind, layer, layer, part, _vectors(width), _at_least_two_axes)
        elif id(layer) in attention:
            width = layer.in_features if inputs else layer.out_features
            part, owner = "context" if inputs else "output", attention[id(layer)]
            sites[name] = Site(name, kind, layer, owner, part, _vectors(width), _at_least_two_axes)
        elif isinstance(layer, nn.Linear) or is_conv1d_of_transformers(layer):
            if isinstance(layer, nn.Linear):
                width = layer.in_features if inputs else layer.out_features
            else:
                width = int(layer.weight.shape[0 if inputs else 1])
            part = "input" if inputs else "output"
            sites[name] = Site(name, kind, layer, layer, part, _vectors(width), _at_least_two_axes)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d):
            make, rows = (_patches(layer), _padded(layer, torch)) if inputs else _pixels(layer)
            sites[name] = Site(name, kind, layer, layer, "input" if inputs else "output", make, rows)
    return sites


def _is_plain_attention(layer: Any, nn: Any) -> bool:
    # A subclass that computes in a way of its own calls its parts, or hides them: nothing is known of it here.
    return isinstance(layer, nn.MultiheadAttention) and type(layer).forward is nn.MultiheadAttention.forward


def is_conv1d_of_transformers(layer: Any) -> bool:
    """Conv1D of transformers (GPT-2): a linear layer whose weights are (in, out). It is not imported for that."""
    if all(kind.__name__ != "Conv1D" for kind in type(layer).__mro__):
        return False
    return getattr(getattr(layer, "weight", None), "ndim", 0) == 2


def _vectors(width: int) -> Callable[[bool, str, str], Autocorrelation]:
    return lambda center, method, precision: Autocorrelation(width, center, method, precision)


def _patches(layer: Any) -> Callable[[bool, str, str], Autocorrelation]:
    def make(center: bool, method: str, precision: str) -> Autocorrelation:
        if method == "qr":
            raise Unsupported(f"a {type(layer).__name__}, which method='qr' does not know; name the linear layers")
        around = layer.padding_mode in ("zeros", "circular")
        return PatchAutocorrelation(
            layer.in_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding if around else 0,
            layer.dilation,
            layer.groups,
            layer.padding_mode if around else "zeros",
            center,
        )

    return make


def _at_least_two_axes(x: Any) -> Any:
    return x[None] if x.ndim == 1 else x


def _padded(layer: Any, torch: Any) -> Callable[[Any], Any]:
    """Images together with what a layer pads them with by mirroring or repeating."""
    if layer.padding_mode in ("zeros", "circular"):
        return lambda x: x
    if isinstance(layer.padding, str):
        amounts = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        sides = [(0, 0) if layer.padding == "valid" else (total // 2, total - total // 2) for total in amounts]
    else:
        sides = [(p, p) for p in layer.padding]
    around = [p for pair in reversed(sides) for p in pair]
    return lambda x: torch.nn.functional.pad(x, around, mode=layer.padding_mode)


def _pixels(layer: Any) -> tuple[Callable[[bool, str, str], Autocorrelation], Callable[[Any], Any]]:
    """Of the outputs of a convolution: a sample is what all its kernels give at one position."""
    axes = len(layer.kernel_size)
    return _vectors(layer.out_channels), lambda y: (y if y.ndim == axes + 2 else y[None]).movedim(1, -1)


# --- names ------------------------------------------------------------------------------------------------------------


def _named(module: Any, layers: Sequence[str], every: dict[str, Site], torch: Any) -> set[str]:
    if isinstance(layers, str):
        raise InvalidType("layers", f"expected a sequence of names, got the single name {layers!r}")
    parts = dict(module.named_modules(remove_duplicate=False))
    names: set[str] = set()
    for name in layers:
        if name in every:
            names.add(name)
        elif name not in parts:
            raise InvalidArgument(
                "layers", f"there is no module {name!r}; linear and convolutional layers are {_listed(list(every))}"
            )
        else:
            inside = [full for full, site in every.items() if site.layer is parts[name] and full != name]
            mine = [full for full in inside if full.rpartition(".")[0] == name]
            if not mine:
                raise Unsupported(f"layers: {_why_not(name, parts[name], torch)}")
            names.update(mine)
    if not names:
        raise InvalidArgument("layers", "expected at least one name, got none")
    return names


def _why_not(name: str, layer: Any, torch: Any) -> str:
    for base in type(layer).__mro__:
        if base.__name__ in _REASONS:
            return f"{name!r} is a {type(layer).__name__}: {_REASONS[base.__name__]}"
    known = "linear layers, Conv1d, Conv2d and attention are collected"
    if next(layer.children(), None) is not None:
        known += ", by their own names and not by that of what holds them"
    return f"{name!r} is a {type(layer).__name__}; {known}"


def _none_of(module: Any) -> str:
    kinds = {type(layer).__name__: layer for layer in module.modules()}
    text = f"{type(module).__name__} has no torch.nn.Linear, Conv1d, Conv2d or MultiheadAttention layers"
    for kind, layer in kinds.items():
        for base in type(layer).__mro__:
            if base.__name__ in _REASONS:
                return f"{text}; of its {kind}: {_REASONS[base.__name__]}"
    return text


def _listed(names: list[str]) -> str:
    return repr(names) if len(names) <= 20 else f"{names[:20]!r} and {len(names) - 20} more"


def _check_initialized(site: Site, torch: Any) -> None:
    lazy = getattr(site.layer, "has_uninitialized_params", None)
    if lazy is not None and lazy():
        raise InvalidArgument(
            "module",
            f"layer {site.name!r} is a {site.kind} whose width is not known before its first call: run one batch "
            "through the module first",
        )


# --- hooks ------------------------------------------------------------------------------------------------------------

_attention_lock = threading.Lock()
_attention_users = 0
_attention_before = True


@contextlib.contextmanager
def slow_attention(module: Any, torch: Any) -> Iterator[None]:
    """Without the fused kernels of attention and encoder layers, which call no submodule and pass their hooks by.

    The switch is one for the whole process: the last of several that are at work puts it back, and a module that has
    nothing of the kind leaves it alone.
    """
    global _attention_users, _attention_before
    nn, backend = torch.nn, torch.backends.mha
    fused = nn.MultiheadAttention | nn.TransformerEncoderLayer | nn.TransformerEncoder
    if not any(isinstance(part, fused) for part in module.modules()):
        yield
        return
    with _attention_lock:
        if _attention_users == 0:
            _attention_before = backend.get_fastpath_enabled()
            backend.set_fastpath_enabled(False)
        _attention_users += 1
    try:
        yield
    finally:
        with _attention_lock:
            _attention_users -= 1
            if _attention_users == 0:
                backend.set_fastpath_enabled(_attention_before)


class Watch:
    """Hooks that hand the samples of each site to a function.

    Parameters
    ----------
    sites : sequence of Site
    add : callable
        ``add(site, tensor)``.
    torch : module
    """

    def __init__(self, sites: Sequence[Site], add: Callable[[Site, Any], None], torch: Any) -> None:
        self._torch, self._add = torch, add
        self._active = False
        self._owners: dict[int, tuple[Any, dict[str, Site]]] = {}
        for site in sites:
            self._owners.setdefault(id(site.owner), (site.owner, {}))[1][site.part] = site
        self._swapped: dict[int, tuple[Any, Any]] = {}
        self._identities: dict[tuple[int, Any, Any], Any] = {}

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """The hooks are there; each exit takes them away."""
        with contextlib.ExitStack() as stack:
            for owner, parts in self._owners.values():
                for handle in self._hooks(owner, parts):
                    stack.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """What is called within counts: a loader may use the module for ends of its own."""
        self._active = True
        try:
            yield
        finally:
            self._active = False
            for owner, out_proj in self._swapped.values():
                owner._modules["out_proj"] = out_proj
            self._swapped.clear()

    def _hooks(self, owner: Any, parts: dict[str, Site]) -> Iterator[Any]:
        if "input" in parts:
            yield owner.register_forward_pre_hook(self._input(parts["input"]), with_kwargs=True)
        if "output" in parts:
            yield owner.register_forward_hook(self._output(parts["output"]))
        queries: dict[str, Site] = {name: parts[name] for name in ("query", "key", "value") if name in parts}
        if queries:
            yield owner.register_forward_pre_hook(self._queries(queries), with_kwargs=True)
        if "context" in parts:
            yield owner.register_forward_pre_hook(self._before_projection)
            # Before other hooks, which expect the outputs as they are.
            yield owner.register_forward_hook(self._after_projection(parts["context"]), prepend=True)

    def _input(self, site: Site) -> Callable[..., None]:
        def hook(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._active:
                self._add(site, args[0] if args else next(iter(kwargs.values())))

        return hook

    def _output(self, site: Site) -> Callable[..., None]:
        def hook(_layer: Any, _args: tuple[Any, ...], output: Any) -> None:
            if self._active:
                self._add(site, output[0] if isinstance(output, tuple) else output)

        return hook

    def _queries(self, sites: dict[str, Site]) -> Callable[..., None]:
        def hook(_layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self._active:
                return
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            for name, site in sites.items():
                if name in given:  # else the module itself says what it lacks
                    self._add(site, given[name])

        return hook

    # The weights of out_proj are used by a function that forms its inputs and applies it at once. With the identity in
    # its place that function gives these inputs, exactly; the projection itself then follows. One product more.

    def _before_projection(self, attention: Any, _args: tuple[Any, ...]) -> None:
        if not self._active or id(attention) in self._swapped:
            return
        out_proj = attention.out_proj
        stand_in = self._torch.nn.Module()
        stand_in.weight, stand_in.bias = self._identity(out_proj.weight), None
        self._swapped[id(attention)] = (attention, out_proj)
        attention._modules["out_proj"] = stand_in

    def _after_projection(self, site: Site) -> Callable[..., Any]:
        def hook(attention: Any, _args: tuple[Any, ...], output: Any) -> Any:
            _, out_proj = self._swapped.pop(id(attention), (None, None))
            if out_proj is None:
                return None
            attention._modules["out_proj"] = out_proj
            context, *rest = output
            self._add(site, context)
            return (self._torch.nn.functional.linear(context, out_proj.weight, out_proj.bias), *rest)

        return hook

    def _identity(self, weight: Any) -> Any:
        key = (int(weight.shape[0]), weight.dtype, weight.device)
        if key not in self._identities:
            self._identities[key] = self._torch.eye(key[0], dtype=weight.dtype, device=weight.device)
        return self._identities[key]
