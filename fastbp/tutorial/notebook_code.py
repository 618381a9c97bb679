"""The code of the notebook's cells, apart from the lines that are read from `fastbp.reference`."""

from __future__ import annotations

SETUP = """
import numpy as np

import fastbp
import fastbp.reference as reference
from fastbp.activations import sigmoid

np.set_printoptions(precision=3, suppress=True)
"""

NUMERIC = """
def loss_with(w):
    changed = W1.copy()
    changed[1, 0] = w
    y = reference.forward(X, changed, b1, W2, b2)[-1]
    return 0.5 * np.sum((y - y_true) ** 2)

h = 1e-6
w = W1[1, 0]
print("central difference:", (loss_with(w + h) - loss_with(w - h)) / (2 * h))
print("backpropagation:   ", dW1[1, 0])
print(fastbp.check_backward(reference.forward, reference.backward, X, y_true, (W1, b1, W2, b2)))
"""

UPDATE = """
lr = {lr:g}
for param, grad in zip((W1, b1, W2, b2), (dW1, db1, dW2, db2)):
    {line}

y_after = reference.forward(X, W1, b1, W2, b2)[-1]
print("loss before:", E, "after:", 0.5 * np.sum((y_after - y_true) ** 2))
"""

TRAINING = """
model = fastbp.MLP([2, 3, 1], loss="mse", reduction="sum", dtype="float64")
model.weights, model.biases = [W1, W2], [b1, b2]
history = model.fit(X, y_true, epochs={steps}, batch_size=4, optimizer=fastbp.SGD(lr={lr:g}), progress=False)
print(model.predict(X).round(2).ravel())
fastbp.plot.history(history)
fastbp.plot.decision_boundary(model, X, y_true);
"""

FAST = """
from timeit import repeat

def microseconds(call, number=300):
    call()  # compiles
    return 1e6 * min(repeat(call, number=number, repeat=5)) / number

for module in (reference, fastbp):
    params = [p.copy() for p in (W1, b1, W2, b2)]
    z1, a1, z2, y_pred = module.forward(X, *params)
    calls = {
        "forward": lambda: module.forward(X, *params),
        "backward": lambda: module.backward(X, y_true, z1, a1, y_pred, params[2]),
        "train_step": lambda: module.train_step(X, y_true, *params, lr=0.01),
    }
    for name, call in calls.items():
        print(f"{module.__name__:18}{name:12}{microseconds(call):6.1f} us")
"""

TRAIN = """
from fastbp.data import split_digits

data = split_digits()
images, labels = data.X_train, np.eye(10)[data.y_train]

def train(model, X=images, Y=labels, lr=0.5):
    print("before:", model.diagnose(X, Y).verdict)
    history = model.fit(X, Y, epochs=30, optimizer=fastbp.SGD(lr=lr), progress=False)
    print(f"loss {history.loss[0]:.3g} -> {history.loss[-1]:.3g}")
    print("after:", model.diagnose(X, Y).verdict)

train(fastbp.MLP([64, 32, 10], seed=0))
"""

# Cells of each failure: the mistake, then the cure.
FAILURES: dict[str, tuple[str, ...]] = {
    "zero": (
        """
model = fastbp.MLP([64, 32, 10], seed=0)
for W in model.weights:
    W[...] = 0
train(model)
""",
    ),
    "rate": ("train(fastbp.MLP([64, 32, 10], seed=0), lr=20)",),
    "dead": (
        """
model = fastbp.MLP([64, 32, 10], seed=0)
model.biases[0][...] = -3
train(model)
""",
    ),
    "saturated": (
        'train(fastbp.MLP([64, 32, 10], hidden="sigmoid", seed=0), 255 * images)',
        'train(fastbp.MLP([64, 32, 10], hidden="sigmoid", input_scale=1 / 255, seed=0), 255 * images)',
    ),
    "vanishing": (
        'train(fastbp.MLP([64, *[32] * 8, 10], hidden="sigmoid", seed=0))',
        'train(fastbp.MLP([64, *[32] * 8, 10], hidden="relu", seed=0))',
    ),
    "unscaled": (
        """
ink = 16 * images.sum(axis=1, keepdims=True)
train(fastbp.MLP([64, 32, 1], output="identity", seed=0), Y=ink, lr=0.1)
""",
        """
scaled = (ink - ink.mean()) / ink.std()
train(fastbp.MLP([64, 32, 1], output="identity", seed=0), Y=scaled, lr=0.1)
""",
    ),
    "derivative": (
        """
def my_backward(X, y_true, z1, a1, y_pred, W2):
    dz2 = (y_pred - y_true) * y_pred * (1 - y_pred)
    dz1 = dz2 @ W2.T  # what is missing?
    return X.T @ dz1, dz1.sum(axis=0), a1.T @ dz2, dz2.sum(axis=0)

print(fastbp.check_backward(reference.forward, my_backward, X, y_true, (W1, b1, W2, b2)))
""",
    ),
}

REFUSED = """
def refused(call):
    try:
        call()
    except (ValueError, TypeError) as error:
        print(f"{type(error).__name__}: {error}")

refused(lambda: fastbp.forward(X, W1.T, b1, W2, b2))
refused(lambda: fastbp.forward(X, W1, b1.reshape(1, -1), W2, b2))
refused(lambda: fastbp.sgd_update((W1, b1), (dW1, dz1), lr=0.1))
refused(lambda: fastbp.train_step(X, y_true[:, 0], W1, b1, W2, b2, lr=0.1))
"""

DIGITS = (
    """
model = fastbp.MLP([64, 32, 10], output="softmax", loss="categorical_crossentropy", seed=0)
history = model.fit(
    data.X_train,
    data.y_train,
    epochs=60,
    optimizer=fastbp.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
    validation_data=(data.X_test, data.y_test),
    progress=False,
)
predicted = model.predict(data.X_test).argmax(axis=1)
print(f"right: {np.mean(predicted == data.y_test):.1%}")
fastbp.plot.history(history);
""",
    """
wrong = np.flatnonzero(predicted != data.y_test)
print("true:     ", data.y_test[wrong])
print("predicted:", predicted[wrong])
fastbp.plot.weights(model);
""",
)
