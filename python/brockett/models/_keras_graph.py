"""The configuration of a Keras model: what its layers are, and which reads which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["KerasGraph", "Path", "snake"]

#: The name of a layer after those of the models and wrappers that hold it: names are unique within one model only.
Path = tuple[str, ...]

_NO_SETTINGS: dict[str, Any] = {}


def snake(name: str) -> str:
    """Conv2DTranspose as conv2d_transpose."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


class KerasGraph:
    """Layers by their path, those of models within the model among them."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._nodes: dict[Path, dict[str, Any]] = {}
        self._kinds: dict[Path, str] = {}
        self._called: dict[str, list[Path]] = {}
        if config is not None:
            self._add(config, None)

    def _add(self, layer: Mapping[str, Any], above: Path | None) -> None:
        settings = layer.get("config")
        if isinstance(settings, list):  # Sequential before Keras 2.3 has the layers alone
            settings = {"layers": settings}
        if not isinstance(settings, dict):
            return
        name, path = settings.get("name") or layer.get("name"), above or ()
        if name and above is not None:
            path = (*path, str(name))
            self._nodes[path] = settings
            self._kinds[path] = snake(str(layer.get("class_name", "")))
            self._called.setdefault(str(name), []).append(path)
        inner = settings.get("layers", []) if isinstance(settings.get("layers"), list) else []
        for one in [*inner, settings.get("layer"), settings.get("backward_layer")]:
            if isinstance(one, dict):
                self._add(one, path)

    def find(self, names: Iterable[str]) -> Path:
        """The innermost layer among these names of what holds some weights, outermost first; files leave some out."""
        found: Path = ()
        for name in names:
            inside = [path for path in self._called.get(name, []) if path[: len(found)] == found]
            found = min(inside, key=len, default=found)
        return found

    def kind(self, path: Path) -> str:
        return self._kinds.get(path, "")

    def settings(self, path: Path) -> dict[str, Any]:
        return self._nodes.get(path, _NO_SETTINGS)

    def walk(
        self, weighty: Mapping[int, Path], states: set[int], norms: set[Path]
    ) -> tuple[list[tuple[int, int]], dict[Path, Path]]:
        """Which layers of weights read which, and the normalization that alone reads the output of a layer.

        `weighty` gives the number of each to its layer in the configuration; `states` are those that read the state of
        a recurrent layer, `norms` the normalizations.
        """
        self._states = states
        self._numbers: dict[Path, list[int]] = {}
        for number, path in weighty.items():
            self._numbers.setdefault(path, []).append(number)
        self._norms, self._edges, self._follows = norms, dict[tuple[int, int], None](), dict[Path, Path]()
        before = -1
        while before < len(self._edges):  # a layer that is used twice may read one that is listed later
            before = len(self._edges)
            self._model(self.config, (), frozenset())
        return list(self._edges), self._follows

    def _model(self, model: Mapping[str, Any], above: Path, sources: frozenset[int]) -> frozenset[int]:
        settings = model.get("config", {})
        listed = settings if isinstance(settings, list) else settings.get("layers", [])
        layers = [one for one in listed if isinstance(one, dict)]
        chained = not any(one.get("inbound_nodes") for one in layers)
        written: dict[str, frozenset[int]] = {}
        readers = Counter(name for one in layers for name in _inbound(one))
        readers.update(_outputs(settings))
        previous = ""
        for layer in layers:
            name = str((layer.get("config") or {}).get("name") or layer.get("name"))
            read = [previous] * bool(previous) if chained else _inbound(layer)
            incoming = frozenset().union(*(written.get(one, frozenset()) for one in read)) if read else sources
            path = (*above, name)
            if path in self._norms and len(read) == 1 and (chained or readers[read[0]] == 1):
                before = (*above, read[0])
                self._follows[before] = path
            written[name] = self._layer(layer, path, incoming)
            previous = name
        ends = [previous] if chained else [one for one in _outputs(settings) if one in written]
        return frozenset().union(*(written.get(one, frozenset()) for one in ends))

    def _layer(self, layer: Mapping[str, Any], path: Path, incoming: frozenset[int]) -> frozenset[int]:
        if isinstance((layer.get("config") or {}).get("layers"), list):
            return self._model(layer, path, incoming)
        numbers = self._numbers.get(path, [])
        inner = (layer.get("config") or {}).get("layer")
        if not numbers and isinstance(inner, dict):  # TimeDistributed and other wrappers
            return self._layer(inner, (*path, str((inner.get("config") or {}).get("name"))), incoming)
        if not numbers:
            return incoming
        if self.kind(path).startswith("separable") and len(numbers) == 2:
            first, second = numbers
            self._edges |= dict.fromkeys([*((a, first) for a in sorted(incoming)), (first, second)])
            return frozenset([second])
        read = [number for number in numbers if number not in self._states]
        self._edges |= dict.fromkeys((a, b) for a in sorted(incoming) for b in read if a != b)
        return frozenset(numbers)


def _inbound(layer: Mapping[str, Any]) -> list[str]:
    """Names of the layers that a layer reads: in Keras 3 histories of tensors, before that lists [name, 0, 0, …]."""
    return list(dict.fromkeys(_histories(layer.get("inbound_nodes") or [])))


def _histories(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        history = value.get("keras_history")
        if isinstance(history, list) and history:
            yield str(history[0])
        for one in value.values():
            yield from _histories(one)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            yield value[0]
        else:
            for one in value:
                yield from _histories(one)


def _outputs(settings: Any) -> list[str]:
    found = settings.get("output_layers") if isinstance(settings, dict) else None
    return list(dict.fromkeys(_histories(found)))  # one [name, 0, 0], a list of them, or in Keras 3 a dict
