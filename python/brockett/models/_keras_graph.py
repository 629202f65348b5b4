"""The configuration of a Keras model: what its layers are, and which reads which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["KerasGraph", "snake"]

_NO_SETTINGS: dict[str, Any] = {}


def snake(name: str) -> str:
    """Conv2DTranspose as conv2d_transpose."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", name).lower()


class KerasGraph:
    """Layers by name, those of models within the model among them.

    Attributes
    ----------
    nodes : dict of str to dict
        The settings of each layer.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.nodes: dict[str, dict[str, Any]] = {}
        self._kinds: dict[str, str] = {}
        if config is not None:
            self._add(config)

    def _add(self, layer: Mapping[str, Any]) -> None:
        settings = layer.get("config")
        if isinstance(settings, list):  # Sequential before Keras 2.3 has the layers alone
            settings = {"layers": settings}
        if not isinstance(settings, dict):
            return
        name = settings.get("name") or layer.get("name")
        if name:
            self.nodes[str(name)] = settings
            self._kinds[str(name)] = snake(str(layer.get("class_name", "")))
        inner = settings.get("layers", []) if isinstance(settings.get("layers"), list) else []
        for one in [*inner, settings.get("layer"), settings.get("backward_layer")]:
            if isinstance(one, dict):
                self._add(one)

    def kind(self, name: str) -> str:
        return self._kinds.get(name, "")

    def settings(self, name: str) -> dict[str, Any]:
        return self.nodes.get(name, _NO_SETTINGS)

    def walk(
        self, weighty: Mapping[int, str], states: set[int], norms: set[str]
    ) -> tuple[list[tuple[int, int]], dict[str, str]]:
        """Which layers of weights read which, and the normalization that alone reads the output of a layer.

        `weighty` gives the number of each to the name of its layer in the configuration; `states` are those that read
        the state of a recurrent layer, `norms` names of normalizations.
        """
        self._states = states
        self._numbers: dict[str, list[int]] = {}
        for number, name in weighty.items():
            self._numbers.setdefault(name, []).append(number)
        self._norms, self._edges, self._follows = norms, dict[tuple[int, int], None](), dict[str, str]()
        before = -1
        while before < len(self._edges):  # a layer that is used twice may read one that is listed later
            before = len(self._edges)
            self._model(self.config, frozenset())
        return list(self._edges), self._follows

    def _model(self, model: Mapping[str, Any], sources: frozenset[int]) -> frozenset[int]:
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
            if name in self._norms and len(read) == 1 and (chained or readers[read[0]] == 1):
                self._follows[read[0]] = name
            written[name] = self._layer(layer, name, incoming)
            previous = name
        ends = [previous] if chained else [one for one in _outputs(settings) if one in written]
        return frozenset().union(*(written.get(one, frozenset()) for one in ends))

    def _layer(self, layer: Mapping[str, Any], name: str, incoming: frozenset[int]) -> frozenset[int]:
        if isinstance((layer.get("config") or {}).get("layers"), list):
            return self._model(layer, incoming)
        numbers = self._numbers.get(name, [])
        inner = (layer.get("config") or {}).get("layer")
        if not numbers and isinstance(inner, dict):  # TimeDistributed and other wrappers
            return self._layer(inner, str((inner.get("config") or {}).get("name")), incoming)
        if not numbers:
            return incoming
        if self.kind(name).startswith("separable") and len(numbers) == 2:
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
