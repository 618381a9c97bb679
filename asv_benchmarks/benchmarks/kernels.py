"""The functions on the caller's arrays: forward, backward and a training step of a two-layer network."""

from __future__ import annotations

from .common import LR, OverShapes, require, two_layers


class Forward(OverShapes):
    # fewer shapes than for the whole training step, so that a run stays short
    params = [
        ["tiny 32 x 8-16-1", "small 32 x 32-64-1", "tabular 128 x 64-128-10", "mnist 128 x 784-256-10"],
        *OverShapes.params[1:],
    ]

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.forward = require(implementation, "forward")
        n = two_layers(shape, dtype)
        self.arguments = (n.X, n.W1, n.b1, n.W2, n.b2)
        self.forward(*self.arguments)

    def time_forward(self, shape: str, dtype: str, implementation: str) -> None:
        self.forward(*self.arguments)

    time_forward.pretty_name = "forward, two layers"


class Backward(OverShapes):
    params = Forward.params

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.backward = require(implementation, "backward")
        n = two_layers(shape, dtype)
        z1, a1, _, y_pred = require(implementation, "forward")(n.X, n.W1, n.b1, n.W2, n.b2)
        self.arguments = (n.X, n.Y, z1, a1, y_pred, n.W2)
        self.backward(*self.arguments)

    def time_backward(self, shape: str, dtype: str, implementation: str) -> None:
        self.backward(*self.arguments)

    time_backward.pretty_name = "backward, two layers"


class TrainStep(OverShapes):
    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.train_step = require(implementation, "train_step")
        n = two_layers(shape, dtype)
        self.arguments = (n.X, n.Y, n.W1, n.b1, n.W2, n.b2, LR)
        self.train_step(*self.arguments)

    def time_train_step(self, shape: str, dtype: str, implementation: str) -> None:
        self.train_step(*self.arguments)

    time_train_step.pretty_name = "train_step, two layers"
