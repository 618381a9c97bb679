"""TensorFlow's ways of the same training, with steps that XLA compiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.cli.bench.problems import BETAS, EPS, Made, Problem


def make_tensorflow(problem: Problem, scan: bool = False) -> Made:
    """A call for each step, or, with `scan`, one for all steps of all epochs."""
    import tensorflow as tf

    shape = problem.shape
    Ws, bs = ([tf.Variable(p) for p in part] for part in problem.copies())
    parameters = [*Ws, *bs]
    moments = [tuple(tf.Variable(tf.zeros_like(p)) for _ in range(2)) for p in parameters]
    t = tf.Variable(0, dtype=shape.dtype)

    def loss(x: Any, y: Any) -> Any:
        for W, b in zip(Ws, bs, strict=True):
            x = tf.matmul(x, W) + b
            x = x if W is Ws[-1] else tf.nn.relu(x)
        if shape.loss == "binary_crossentropy":
            return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(y, x)) / shape.batch
        x = tf.nn.sigmoid(x) if shape.output == "sigmoid" else x
        return 0.5 * tf.reduce_sum(tf.square(x - y)) / shape.batch

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            value = loss(x, y)
        gradients = tape.gradient(value, parameters)
        if shape.optimizer == "SGD":
            for p, g in zip(parameters, gradients, strict=True):
                p.assign_sub(shape.lr * g)
            return
        t.assign_add(1)
        rate, second = shape.lr / (1 - BETAS[0] ** t), 1 - BETAS[1] ** t
        for p, g, (m, v) in zip(parameters, gradients, moments, strict=True):
            m.assign(BETAS[0] * m + (1 - BETAS[0]) * g)
            v.assign(BETAS[1] * v + (1 - BETAS[1]) * g * g)
            p.assign_sub(rate * m / (tf.sqrt(v / second) + EPS))

    if scan:
        X, Y = (tf.constant(a.reshape(shape.steps, shape.batch, -1)) for a in (problem.X, problem.Y))

        def epochs_of(n: Any) -> None:
            def body(i: Any) -> list[Any]:
                step(X[i % shape.steps], Y[i % shape.steps])
                return [i + 1]

            tf.while_loop(lambda i: i < n * shape.steps, body, [tf.constant(0)])

        compiled = tf.function(epochs_of, jit_compile=True)

        def run(epochs: int) -> None:
            compiled(tf.constant(epochs))

    else:
        step_of = tf.function(step, jit_compile=True)
        batches = problem.batches(tf.constant)

        def run(epochs: int) -> None:
            for _ in range(epochs):
                for x, y in batches:
                    step_of(x, y)

    return run, lambda: [np.asarray(p) for p in parameters]
