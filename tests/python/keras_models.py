"""Run by test_models_keras.py in a process of its own: models that Keras saves, and what their layers compute."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers as L


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x = images = keras.Input((9, 9, 4))
    x = L.Conv2D(8, 3, name="first")(x)
    x = L.BatchNormalization(epsilon=0.1, name="bn")(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="deep")(x)
    x = L.Conv2D(12, 1, groups=4, name="grouped")(x)
    y = L.SeparableConv2D(6, 3, padding="same", name="apart")(x)
    y = L.Conv2DTranspose(5, 2, name="up")(y)
    y = L.GlobalAveragePooling2D(name="pool")(y)
    z = L.GlobalMaxPooling2D(name="most")(x)
    z = keras.Sequential([L.Dense(5, activation="relu", name="inner")], name="branch")(z)
    out = L.Dense(7, name="head")(L.Add(name="sum")([y, z]))
    save(folder, "images", keras.Model(images, out), np.random.default_rng(0).normal(size=(2, 9, 9, 4)))
    i = tokens = keras.Input((6,), dtype="int32")
    t = L.Embedding(11, 4, name="table")(i)
    t = L.MultiHeadAttention(2, 3, name="attention")(t, t)
    t = L.LSTM(3, return_sequences=True, name="lstm")(t)
    t = L.Bidirectional(L.GRU(2, return_sequences=True, name="gru"), name="both")(t)
    out = L.Dense(2, name="last")(t)
    model = keras.Model(tokens, out)
    model.compile("adam", "mse")
    save(folder, "tokens", model, np.random.default_rng(1).integers(0, 11, size=(2, 6)))
    i = repeated = keras.Input((6, 4))
    t = L.MultiHeadAttention(2, 3, name="first")(i, i)
    t = L.MultiHeadAttention(2, 3, name="second")(t, t)
    t = keras.Sequential([L.TimeDistributed(L.Dense(4, name="inner"), name="each")], name="branch_transpose")(t)
    save(folder, "repeated", keras.Model(repeated, t), np.random.default_rng(2).normal(size=(2, 6, 4)))


def save(folder: Path, name: str, model: keras.Model, x: np.ndarray) -> None:
    for variable in model.variables:  # statistics and biases that are not those of the start
        value = np.random.default_rng(zlib.crc32(variable.path.encode())).uniform(0.2, 1.0, size=variable.shape)
        if "optimizer" not in variable.path and "seed" not in variable.path:
            variable.assign(np.asarray(variable) + value if "kernel" not in variable.path else np.asarray(variable))
    model.save(folder / f"{name}.keras")
    model.save(folder / f"{name}.h5")
    model.save_weights(folder / f"{name}.weights.h5")
    tensors = [layer.output for layer in model.layers]
    outputs = [np.asarray(one.detach()) for one in keras.Model(model.input, tensors)(x)]
    np.savez(folder / f"{name}.npz", **{layer.name: y for layer, y in zip(model.layers, outputs, strict=True)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
