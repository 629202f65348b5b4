"""Post-activations of layers: what the function that takes a layer's outputs makes of them, module or not."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._collect_layers import Site
from ._errors import Unsupported

__all__ = ["Follow"]

#: Activation functions, by the names that torch has for them in all its namespaces.
_ACTIVATIONS = frozenset(
    [
        "celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid",
        "log_softmax", "logsigmoid", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "sin",
        "softmax", "softmin", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold",
    ]
)
#: What stands between a layer and its activation function and keeps neuron for neuron.
_FOLLOWED = frozenset(
    [
        "alpha_dropout", "batch_norm", "bfloat16", "clone", "contiguous", "detach", "double", "dropout",
        "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "float", "group_norm", "half",
        "instance_norm", "layer_norm", "rms_norm", "to", "type",
    ]
)
_PRODUCTS = frozenset(("mul", "multiply", "__mul__", "__rmul__", "__imul__"))


class _Trace:
    """Outputs of one call of a layer on their way to the activation function."""

    def __init__(self, site: Site) -> None:
        self.site, self.done = site, False


class Follow:
    """Hands the activations of each site to a function.

    Parameters
    ----------
    sites : sequence of Site
        Of outputs.
    add : callable
        ``add(site, tensor)``.
    module : torch.nn.Module
        Of which all activation modules are watched.
    torch : module

    Notes
    -----
    Functions are seen by a torch function mode, activation modules by hooks: what such a module does inside is its own,
    so x · sigmoid(x) written in a module is taken as that. Written as functions it would pass for sigmoid(x), and is
    refused instead.
    """

    def __init__(self, sites: Sequence[Site], add: Callable[[Site, Any], None], module: Any, torch: Any) -> None:
        self._sites, self._add, self._module, self._torch = sites, add, module, torch
        self._traces: dict[int, tuple[Any, _Trace]] = {}
        self._inside: list[tuple[Any, _Trace]] = []
        self._active = False
        self._mode = _mode(self._called, torch)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """The hooks are there; each exit takes them away."""
        with contextlib.ExitStack() as stack:
            for site in self._sites:
                stack.callback(site.owner.register_forward_hook(self._started(site)).remove)
            for part in self._module.modules():
                if _is_activation(part, self._torch):
                    stack.callback(part.register_forward_pre_hook(self._entered).remove)
                    stack.callback(part.register_forward_hook(self._left).remove)
            yield

    @contextlib.contextmanager
    def one_pass(self) -> Iterator[None]:
        """What is called within counts."""
        self._active = True
        try:
            with self._mode():
                yield
        finally:
            self._active = False
            self._traces.clear()
            self._inside.clear()

    def _started(self, site: Site) -> Callable[..., None]:
        def hook(_layer: Any, _args: tuple[Any, ...], output: Any) -> None:
            y = output[0] if isinstance(output, tuple) else output
            if self._active:
                self._follow(y, _Trace(site))

        return hook

    def _follow(self, tensor: Any, trace: _Trace) -> None:
        # Not kept alive by this: an id that was given away again is told by the reference.
        self._traces[id(tensor)] = (weakref.ref(tensor), trace)

    def _trace_of(self, value: Any) -> _Trace | None:
        reference, trace = self._traces.get(id(value), (None, None))
        return trace if reference is not None and reference() is value else None

    def _found(self, trace: _Trace, before: Any, after: Any) -> None:
        if after is before:  # in place: what follows is about activations
            del self._traces[id(before)]
        if not trace.done:
            trace.done = True
            self._add(trace.site, after)

    # --- modules ------------------------------------------------------------------------------------------------------

    def _entered(self, part: Any, args: tuple[Any, ...]) -> None:
        trace = self._trace_of(args[0]) if self._active and args and not self._inside else None
        if trace is not None:
            self._inside.append((part, trace))

    def _left(self, part: Any, args: tuple[Any, ...], output: Any) -> None:
        if not self._inside or self._inside[-1][0] is not part:
            return
        _, trace = self._inside.pop()
        if isinstance(output, self._torch.Tensor) and output.shape == args[0].shape:
            self._found(trace, args[0], output)

    # --- functions ----------------------------------------------------------------------------------------------------

    def _called(self, name: str, values: tuple[Any, ...], out: Any) -> None:
        if not self._active or self._inside or not isinstance(out, self._torch.Tensor):
            return
        for value in values:
            trace = self._trace_of(value) if isinstance(value, self._torch.Tensor) else None
            if trace is None or out.shape != value.shape:
                continue
            if name in _ACTIVATIONS:
                self._found(trace, value, out)
            elif name in _FOLLOWED:
                self._follow(out, trace)
            elif name in _PRODUCTS and trace.done:
                raise Unsupported(
                    f"the outputs of layer {trace.site.name!r} are multiplied with something after an activation "
                    "function took them, as x * sigmoid(x) does: which is the activation cannot be told. Write it as a "
                    "module (torch.nn.SiLU), or collect the inputs of the next layer"
                )


def _is_activation(part: Any, torch: Any) -> bool:
    kind = type(part)
    if isinstance(part, torch.nn.MultiheadAttention) or next(part.children(), None) is not None:
        return False
    if kind.__module__ in ("torch.nn.modules.activation", "transformers.activations"):
        return True
    ends = ("activation", "elu", "swish", "mish", "silu", "sigmoid", "tanh", "sine")
    return kind.__name__.lower().endswith(ends)


def _mode(called: Callable[[str, tuple[Any, ...], Any], None], torch: Any) -> Callable[[], Any]:
    class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            name = getattr(func, "__name__", "")
            called(name.removesuffix("_") if not name.endswith("__") else name, (*args, *(kwargs or {}).values()), out)
            return out

    return Mode
