"""Autocorrelations of what the layers of a torch module are given and give, from batches that pass through it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _files, _options
from ._autocorrelation import METHODS, PRECISIONS, Autocorrelation, article
from ._collect_plan import CollectionPlan, plan_of
from ._collection import OF, Collection, Staged, uninterrupted
from ._errors import BrockettError, EngineUnavailable, InvalidArgument, InvalidType, NonFinite, Unsupported

# What is imported within the functions is what only they need: importing brockett is cheap.
if TYPE_CHECKING:
    from ._collect_layers import Site
    from ._collect_masks import Mask

__all__ = ["collect", "collect_plan"]


def collect(
    module: Any,
    batches: Iterable[Any],
    layers: Sequence[str] | None = None,
    *,
    of: str = "inputs",
    center: bool = False,
    method: str = "gram",
    precision: str = "double",
    mask: Mask | Mapping[str, Mask] = None,
    forward: Callable[[Any, Any], Any] | None = None,
    into: dict[str, Autocorrelation] | None = None,
    checkpoint: _files.PathLike | None = None,
    checkpoint_interval: float = 300.0,
    accumulate_on: Any = None,
    memory_limit: float | None = None,
    progress: bool | None = None,
) -> Collection:
    """Autocorrelation R = E[x xᵀ] of what each layer is given, or gives, over batches run through a module.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU, on CUDA devices, or some of both. It is put into evaluation mode and run without gradients
        meanwhile; the modes of all its submodules are restored, and the hooks removed, whatever happens.
    batches : iterable
        A tensor is passed as the module's one argument; of a tuple or a list the first item is (a data loader gives
        (x, target)); a mapping is passed as keyword arguments.
    layers : sequence of str, optional
        Names as in ``module.named_modules()``. By default all layers of the kinds below, a module with several names
        under its first.
    of : {"inputs", "preactivations", "activations"}, default "inputs"
        "inputs": x, what the weights W are multiplied with. "preactivations": y = W x + b, the outputs of the layer
        (C = E[y yᵀ] is what a layer is descrambled by: ``bk.descramble(np.eye(n), autocorrelation=found[name])``).
        "activations": f(y), where an activation function f takes y, or y after a normalization or dropout.
    center, method, precision
        As in `Autocorrelation`. Patches of convolutions know method="gram" only, and always sum in double precision.
    mask : str, callable or mapping, optional
        Which positions count: a key of the batches (``"attention_mask"``) or a function of a batch, giving booleans of
        shape (…, n_samples) as `Autocorrelation.update` takes them; of the patches of a convolution one for each image.
        (batch, sequence) goes with samples (batch, sequence), (batch, sequence, …) and (batch · sequence,). By layer as
        a mapping of names, or patterns such as ``"encoder.*"``, to these or to None, which takes every sample: an exact
        name wins over patterns, of which the first does; layers not in it have no mask. Without a mask padding counts.
    forward : callable, optional
        ``forward(module, batch)`` instead of the calls described above.
    into : dict of str to Autocorrelation, optional
        An earlier result, whose accumulators are added to in place; its layers are the default of `layers`. An empty
        dict is filled at once, so that what was accumulated is there after Ctrl-C or an error, too.
    checkpoint : path-like, optional
        A file that keeps the sums and the number of batches in them. Where it exists, that many batches are taken from
        `batches` without being run: the same ones must come in the same order. It is also written on Ctrl-C and errors.
        A file of another module, other layers or other options is refused.
    checkpoint_interval : float, default 300
        Seconds between two writings of the checkpoint; 0 writes after every batch.
    accumulate_on : {None, "cpu", "cuda:<n>"} or torch.device, default None
        Where to sum. None: each layer where its samples are. "cpu" where a GPU's memory is short: samples are then
        copied off it.
    memory_limit : float, optional
        Bytes that the sums may take on any one device while this runs. By default what is available there now.
    progress : bool, optional
        Show progress with the time left, and the memory of the sums. By default where standard error is a terminal.

    Returns
    -------
    accumulators : Collection
        A dict of `Autocorrelation` by name of the layer (``""`` where `module` itself is one), in the module's order;
        those of inputs of convolutions are `PatchAutocorrelation`. Its ``save`` keeps all in one file.

    Raises
    ------
    InvalidArgument
        No such layer, or a module without such layers; no batches; a mask that does not fit; an `into` or `checkpoint`
        of something else.
    NonFinite
        A NaN or Inf in what a layer is given or gives; the batch and the layer are named.
    OutOfMemory
        The sums would need more than `memory_limit`. Nothing was run.
    Unsupported
        A layer that is of none of these kinds (the message says why not), or a convolution with method="qr".
    FileFormatError, OSError
        A checkpoint that is damaged, or cannot be written.

    Warns
    -----
    UserWarning
        A layer was never called, or no activation function took its outputs.

    Notes
    -----
    **Layers.** ``torch.nn.Linear``, ``Conv1d``, ``Conv2d`` with their subclasses and parametrizations, ``Conv1D`` of
    transformers, and ``torch.nn.MultiheadAttention``. Attention has three inputs, which are named as parts of it:
    ``"attn.query"``, ``"attn.key"``, ``"attn.value"`` meet the three parts of its ``in_proj_weight``; ``"attn"`` in
    `layers` stands for all three. The inputs of ``"attn.out_proj"`` are formed inside one function; they are had by
    putting the identity in its place, one product more. The fused kernels of attention and encoder layers, which pass
    all hooks by, are switched off meanwhile (``torch.backends.mha``, for the whole process). A layer called several
    times in a pass adds the samples of each call.

    **All or nothing.** A batch is summed beside the totals and added when it is through all layers, so one that fails
    (a NaN in the fifth layer, an exception in the module, Ctrl-C) leaves all totals as if it had not come. What came
    before it stays in `into` and in the checkpoint.

    Memory: 2 · 8 Σ n_features² bytes while it runs, half of that in the result, however many batches pass;
    `collect_plan` tells beforehand. Cost: the forward passes, n_samples n_features² flops a layer, and some
    50 n_features² bytes of memory traffic a layer and batch for the adding: 16 ms for 4,096 features on one core of a
    Zen 4, as long as the sums of 32 samples, a fifth of those of 256, 1/17 of those of 2,048. With method="qr" the
    adding is O(n_features³), so give that large batches.

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
    >>> found = bk.collect(net, [torch.ones(5, 3)], into=found, progress=False)
    >>> found.n_batches, found["2"].n_samples
    (3, 15)
    >>> bk.collect(net, [torch.ones(5, 3)], ["0"], of="activations", progress=False)["0"].n_features
    4
    """
    import torch

    from ._collect_checkpoint import Checkpoint
    from ._collect_layers import slow_attention
    from ._collect_masks import Masks
    from ._progress import progress as show_progress

    place = _device(accumulate_on, torch)
    if layers is None and into:
        layers = list(into)
    sites, totals, plan = _planned(module, layers, of, center, method, precision, place, torch)
    masks = Masks(mask, list(totals))
    interval = _options.number("checkpoint_interval", checkpoint_interval, least=0)
    total = _length(batches, torch)
    kept = Checkpoint(checkpoint, interval, module, of)
    found, done = kept.start(totals, into)
    _check_memory(plan, found, _limit(memory_limit))
    staged = Staged(found)
    at = 0

    def add(site: Site, tensor: Any) -> None:
        try:
            x = tensor if place is None else tensor.to(place)
            x = site.rows(x)
            keep = masks.of(site.name, _samples_of(x, found[site.name]))
            staged.add(site.name, x, None if keep is None else torch.from_numpy(np.ascontiguousarray(keep)))
        except BrockettError as error:
            raise _named(error, at, of, site.name, tensor) from error

    with contextlib.ExitStack() as stack:
        stack.enter_context(kept.kept_on_errors(found))
        stack.enter_context(_evaluation_mode(module))
        stack.enter_context(torch.no_grad())
        stack.enter_context(slow_attention(module, torch))
        watch = _watch(sites, of, add, module, torch)
        stack.enter_context(watch.attached())
        advance = stack.enter_context(show_progress("collecting", total, progress, plan.summary()))
        for batch in batches:
            if at < done:  # in the checkpoint already
                at += 1
                advance(timed=False)
                continue
            masks.read(batch)
            try:
                with watch.one_pass():
                    _run(module, batch, forward, torch)
            except BaseException:
                staged.discard()
                raise
            with uninterrupted():
                staged.commit()
                at += 1
                found.n_batches += 1
                kept.position = at
            kept.write_if_due(found)
            advance()
    if at < done:
        raise InvalidArgument(
            "checkpoint", f"{kept.path} holds {done} batches, but batches gave {at}: it must give the same ones again"
        )
    if at == 0:
        raise InvalidArgument("batches", "gave no batch at all (an iterator is spent after one pass)")
    silent = [name for name, accumulator in found.items() if accumulator.n_samples == 0]
    if silent:
        why = "never called" if of != "activations" else "no activation function took their outputs"
        if type(module).__name__ in ("OptimizedModule", "RecursiveScriptModule", "TopLevelTracedModule"):
            why += f" that is seen; {article(type(module).__name__)} passes hooks by: give the module it was made from"
        warnings.warn(f"no samples reached {', '.join(map(repr, silent))}: {why}", UserWarning, stacklevel=2)
    return found


def collect_plan(
    module: Any,
    layers: Sequence[str] | None = None,
    *,
    of: str = "inputs",
    accumulate_on: Any = None,
    memory_limit: float | None = None,
) -> CollectionPlan:
    """What `collect` would accumulate, and the memory that takes; nothing is run and nothing of that size allocated.

    Parameters
    ----------
    module, layers, of, accumulate_on
        As in `collect`.
    memory_limit : float, optional
        Bytes: raise the error that `collect` would. By default nothing is refused here.

    Returns
    -------
    plan : CollectionPlan
        Its ``layers`` have name, kind, device, n_features and n_bytes = 8 n_features²; ``n_bytes`` is their sum,
        ``working_bytes`` what is held on each device while it runs, ``available`` what is free there now.

    Raises
    ------
    InvalidArgument, Unsupported
        As `collect` does.
    OutOfMemory
        It takes more than `memory_limit` on one device.

    Notes
    -----
    No forward pass: the module is looked through once, in milliseconds.

    Examples
    --------
    >>> import torch, brockett as bk
    >>> net = torch.nn.Sequential(torch.nn.Linear(1000, 400), torch.nn.ReLU(), torch.nn.Linear(400, 9))
    >>> plan = bk.collect_plan(net)
    >>> [(layer.name, layer.n_features, layer.n_bytes) for layer in plan.layers]
    [('0', 1000, 8000000), ('2', 400, 1280000)]
    >>> plan.n_bytes, plan.working_bytes
    (9280000, {'cpu': 18560000})
    """
    import torch

    *_, plan = _planned(module, layers, of, False, "gram", "double", _device(accumulate_on, torch), torch)
    if memory_limit is not None:
        plan.check(_limit(memory_limit))
    return plan


def _planned(
    module: Any,
    layers: Sequence[str] | None,
    of: str,
    center: bool,
    method: str,
    precision: str,
    place: Any,
    torch: Any,
) -> tuple[list[Site], dict[str, Autocorrelation], CollectionPlan]:
    from ._collect_layers import chosen_sites

    _options.option("of", of, OF)
    _options.option("method", method, METHODS)
    _options.option("precision", precision, PRECISIONS)
    sites = chosen_sites(module, layers, of, torch)
    totals = {}
    for site in sites:
        try:
            totals[site.name] = site.make(center, method, precision)
        except Unsupported as error:
            raise Unsupported(f"layers: {site.name!r} is {error}") from None
    return sites, totals, plan_of(sites, totals, of, place)


def _check_memory(plan: CollectionPlan, found: Collection, limit: float | None) -> None:
    """What is held already is not available any more, and not to be had again."""
    held: dict[str, int] = {}
    for layer in plan.layers:
        if found[layer.name]._sum is not None:
            held[layer.device] = held.get(layer.device, 0) + layer.n_bytes
    available = {
        device: None if free is None else free + held.get(device, 0) for device, free in plan.available.items()
    }
    replace(plan, available=available).check(limit)


def _watch(sites: list[Site], of: str, add: Callable[[Site, Any], None], module: Any, torch: Any) -> Any:
    if of != "activations":
        from ._collect_layers import Watch

        return Watch(sites, add, torch)
    from ._collect_activations import Follow

    return Follow(sites, add, module, torch)


def _limit(memory_limit: float | None) -> float | None:
    if memory_limit is None or memory_limit == float("inf"):
        return memory_limit
    return _options.number("memory_limit", memory_limit, least=0)


def _device(accumulate_on: Any, torch: Any) -> Any:
    if accumulate_on is None:
        return None
    try:
        device = torch.device(accumulate_on)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidArgument("accumulate_on", f"expected 'cpu' or a CUDA device, got {accumulate_on!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidArgument("accumulate_on", f"expected 'cpu' or a CUDA device, got {accumulate_on!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EngineUnavailable(
            f"accumulate_on: {device} is not there: PyTorch finds {torch.cuda.device_count()} CUDA devices"
        )
    return device


def _length(batches: Any, torch: Any) -> int | None:
    """How many there are, where that is known. A loader is not asked for anything yet: it may start processes."""
    for kind, word in ((torch.Tensor, "tensor"), (Mapping, "mapping"), (str, "string")):
        if isinstance(batches, kind):
            raise InvalidType(
                "batches",
                f"is one {word}; expected an iterable of batches" + (": pass [x]" if word != "string" else ""),
            )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise InvalidType("batches", f"expected an iterable of batches, got {type(batches).__name__}")
    try:
        return len(batches)
    except TypeError:  # generators have no length, and loaders of streams refuse to tell theirs
        return None


def _samples_of(x: Any, accumulator: Autocorrelation) -> tuple[int, ...]:
    """Shape of the samples in x: of images each is one, of vectors all axes but the last count."""
    kernel = getattr(accumulator, "kernel_size", None)
    if kernel is None:
        return tuple(x.shape[:-1])
    return tuple(x.shape[:1]) if x.ndim == len(kernel) + 2 else (1,)


def _named(error: BrockettError, at: int, of: str, name: str, tensor: Any) -> BrockettError:
    """The same error, with the batch and the layer in it."""
    what = {"inputs": "input", "preactivations": "preactivation", "activations": "activation"}[of]
    where = f"batches[{at}], {what} of layer {name!r}"
    if isinstance(error, NonFinite):
        return NonFinite(where, error.index)
    if isinstance(error, InvalidArgument):
        if error.argument == "mask":
            return type(error)(f"batches[{at}], mask for layer {name!r}", error.message)
        device = getattr(tensor, "device", None)
        elsewhere = isinstance(error, InvalidType) and device is not None and device.type != "cpu"
        return type(error)(where, error.message + ("; or collect with accumulate_on='cpu'" if elsewhere else ""))
    if isinstance(error, Unsupported):
        return error
    return type(error)(f"{where}: {error}")


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
