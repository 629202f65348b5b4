"""Autocorrelations of the inputs of a torch module's layers, from batches that pass through it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from . import _options
from ._autocorrelation import METHODS, PRECISIONS, Autocorrelation
from ._errors import InvalidArgument, InvalidType, NonFinite, Unsupported
from ._patch_autocorrelation import PatchAutocorrelation

__all__ = ["collect"]


def collect(
    module: Any,
    batches: Iterable[Any],
    layers: Sequence[str] | None = None,
    *,
    center: bool = False,
    method: str = "gram",
    precision: str = "double",
    mask: str | Callable[[Any], Any] | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    progress: bool | None = None,
) -> dict[str, Autocorrelation]:
    """Autocorrelation of the inputs of every linear and convolutional layer, over batches run through the module.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU. It is put into evaluation mode and run without gradients meanwhile; the modes of all its submodules
        are restored, and the hooks removed, whatever happens.
    batches : iterable
        A tensor is passed as the module's one argument; of a tuple or a list the first item is (a data loader gives
        (x, target)); a mapping is passed as keyword arguments.
    layers : sequence of str, optional
        Names as in ``module.named_modules()``, of ``torch.nn.Linear``, ``Conv1d`` and ``Conv2d`` layers; all of these
        by default.
    center, method, precision
        As in `Autocorrelation`. Convolutions know method="gram" only, and always sum in double precision.
    mask : str or callable, optional
        Which positions count: a key of the batches (``"attention_mask"``) or a function of a batch, giving booleans of
        shape (…, n_samples) as `Autocorrelation.update` takes them, for every layer collected: of a convolution one for
        each image. Without it padding counts.
    forward : callable, optional
        ``forward(module, batch)`` instead of the calls described above.
    progress : bool, optional
        Show a progress bar, through rich where that is installed. By default where standard error is a terminal.

    Returns
    -------
    accumulators : dict of str to Autocorrelation
        By name of the layer (``""`` where `module` itself is one), in the module's order. Those of convolutions are
        `PatchAutocorrelation`.

    Raises
    ------
    InvalidArgument
        No such layer, or a module without such layers; a mask that does not fit the inputs of a layer.
    NonFinite
        A NaN or Inf in the inputs of a layer, which is named.
    Unsupported
        A layer that is neither linear nor a convolution, or a convolution with method="qr".

    Warns
    -----
    UserWarning
        A layer was never called: torch.nn.MultiheadAttention, for one, uses the weights of its out_proj directly.

    Notes
    -----
    Memory O(Σ n_features²), however many batches pass; the cost is that of the forward passes plus
    n_samples n_features² flops a layer. A layer called several times in a pass adds the inputs of each call.

    References
    ----------
    arXiv 2301.07820, section 3: a descrambler is made from what a layer sees of the data.

    Examples
    --------
    >>> import torch, brockett as bk
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    >>> found = bk.collect(net, [torch.ones(5, 3), torch.zeros(5, 3)], progress=False)
    >>> {name: acc.n_samples for name, acc in found.items()}
    {'0': 10, '2': 10}
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise InvalidType("module", f"expected a torch.nn.Module, got {type(module).__name__}")
    chosen = _chosen(module, layers, torch)
    accumulators = {name: _accumulator(name, layer, center, method, precision, torch) for name, layer in chosen.items()}
    current: dict[str, Any] = {"mask": None}

    def hook(name: str) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
        accumulator = accumulators[name]

        def add(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            keep = current["mask"]
            try:
                accumulator.update(_as_seen(layer, x, torch), mask=keep)
            except NonFinite as error:
                raise NonFinite(f"input of layer {name!r}", error.index) from error
            except InvalidArgument as error:
                raise type(error)(
                    f"{'mask for' if error.argument == 'mask' else 'input of'} layer {name!r}", error.message
                ) from error

        return add

    if isinstance(batches, torch.Tensor):
        raise InvalidType("batches", "is one tensor; expected an iterable of batches: pass [x]")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_evaluation_mode(module))
        stack.enter_context(torch.no_grad())
        for name, layer in chosen.items():
            handle = layer.register_forward_pre_hook(hook(name), with_kwargs=True)
            stack.callback(handle.remove)
        advance = stack.enter_context(_progress(batches, progress))
        for batch in batches:
            current["mask"] = _mask_of(batch, mask)
            _run(module, batch, forward, torch)
            advance()
    silent = [name for name, accumulator in accumulators.items() if accumulator.n_samples == 0]
    if silent:
        warnings.warn(f"no samples reached {', '.join(map(repr, silent))}: never called", UserWarning, stacklevel=2)
    return accumulators


def _accumulator(name: str, layer: Any, center: bool, method: str, precision: str, torch: Any) -> Autocorrelation:
    if isinstance(layer, torch.nn.Linear):
        return Autocorrelation(layer.in_features, center, method, precision)
    if method == "qr":
        raise Unsupported(
            f"layers: {name!r} is a {type(layer).__name__}, which method='qr' does not know; name the linear layers"
        )
    _options.option("method", method, METHODS)
    _options.option("precision", precision, PRECISIONS)
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


def _as_seen(layer: Any, x: Any, torch: Any) -> Any:
    """The input with its sample axis, and with what a layer pads it with by mirroring or repeating."""
    if isinstance(layer, torch.nn.Linear):
        return x[None] if x.ndim == 1 else x
    if layer.padding_mode in ("zeros", "circular"):
        return x
    if isinstance(layer.padding, str):
        amounts = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        sides = [(0, 0) if layer.padding == "valid" else (total // 2, total - total // 2) for total in amounts]
    else:
        sides = [(p, p) for p in layer.padding]
    return torch.nn.functional.pad(x, [p for pair in reversed(sides) for p in pair], mode=layer.padding_mode)


def _chosen(module: Any, layers: Sequence[str] | None, torch: Any) -> dict[str, Any]:
    named = dict(module.named_modules())
    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d)
    known = {name: layer for name, layer in named.items() if isinstance(layer, kinds)}
    if layers is None:
        if not known:
            raise InvalidArgument("module", f"{type(module).__name__} has no torch.nn.Linear, Conv1d or Conv2d layers")
        return known
    if isinstance(layers, str):
        raise InvalidType("layers", f"expected a sequence of names, got the single name {layers!r}")
    for name in layers:
        if name not in named:
            raise InvalidArgument(
                "layers", f"there is no module {name!r}; linear and convolutional layers are {list(known)}"
            )
        if name not in known:
            raise Unsupported(
                f"layers: {name!r} is a {type(named[name]).__name__}; linear layers, Conv1d and Conv2d are collected"
            )
    if not layers:
        raise InvalidArgument("layers", "expected at least one name, got none")
    return {name: layer for name, layer in known.items() if name in set(layers)}


@contextlib.contextmanager
def _evaluation_mode(module: Any) -> Iterator[None]:
    # Parts may be frozen in evaluation mode while the rest trains, so the flag of each is kept.
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def _run(module: Any, batch: Any, forward: Callable[[Any, Any], Any] | None, torch: Any) -> None:
    if forward is not None:
        forward(module, batch)
    elif isinstance(batch, Mapping):
        module(**batch)
    elif isinstance(batch, tuple | list):
        if not batch:
            raise InvalidArgument("batches", "expected the input as the first item, got an empty batch")
        module(batch[0])
    elif isinstance(batch, torch.Tensor):
        module(batch)
    else:
        raise InvalidType(
            "batches", f"expected tensors, tuples or mappings (or pass forward=), got {type(batch).__name__}"
        )


def _mask_of(batch: Any, mask: str | Callable[[Any], Any] | None) -> Any:
    if mask is None:
        return None
    if callable(mask):
        return mask(batch)
    if not isinstance(mask, str):
        raise InvalidType("mask", f"expected a key of the batches or a function of a batch, got {mask!r}")
    if not isinstance(batch, Mapping) or mask not in batch:
        raise InvalidArgument("mask", f"the batches have no {mask!r}")
    return batch[mask]


@contextlib.contextmanager
def _progress(batches: Iterable[Any], wanted: bool | None) -> Iterator[Callable[[], None]]:
    shown = sys.stderr.isatty() if wanted is None else _options.flag("progress", wanted)
    total = len(batches) if isinstance(batches, Sized) else None
    if not shown:
        yield lambda: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield _plain_counter(total)
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("collecting", total=total)
        yield lambda: bar.advance(task)


def _plain_counter(total: int | None) -> Callable[[], None]:
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        end = "\n" if done == total else ""
        print(f"\rcollecting: batch {done}" + (f" of {total}" if total else ""), end=end, file=sys.stderr, flush=True)

    return advance
