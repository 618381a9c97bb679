"""What a typed program of a user looks like; .ci/run has mypy --strict check it."""

import numpy as np
import numpy.typing as npt

import fastbp
import fastbp.reference
from fastbp import schedules
from fastbp.data import split_digits


def report(model: fastbp.MLP, epoch: int, history: fastbp.History) -> None:
    print(epoch, history.loss[-1], model.layer_sizes)


def train() -> npt.NDArray[np.float64]:
    digits, one_hot = split_digits(), np.eye(10, dtype=np.float32)
    model = fastbp.MLP([64, 16, 10], hidden="relu", output="sigmoid", loss="mse", dtype=np.float32, seed=0)
    optimizer = fastbp.Adam(schedules.Cosine(1e-3, 10))
    history: fastbp.History = model.fit(
        digits.X_train,
        one_hot[digits.y_train],
        epochs=2,
        batch_size=32,
        optimizer=optimizer,
        validation_split=0.1,
        metrics=["accuracy"],
        callbacks=[report, fastbp.EarlyStopping(patience=2)],
    )
    loss: float = model.train_step(digits.X_test, one_hot[digits.y_test], optimizer)
    gradients = model.backward(model.forward(digits.X_test), one_hot[digits.y_test])
    norms: list[float] = [float(np.abs(dW).sum()) for dW in gradients.weights]
    model.save("model.safetensors")
    loaded: fastbp.MLP = fastbp.MLP.load("model.safetensors")
    loaded.weights[0][...] = 0
    print(
        loss, norms, loaded.predict(digits.X_test).shape, model.diagnose(digits.X_test, np.zeros((360, 10)))
    )
    return history.loss


def by_hand() -> float:
    W1, b1, W2, b2 = np.zeros((2, 3)), np.zeros(3), np.zeros((3, 1)), np.zeros(1)
    X, y_true = [[0, 1], [1, 1]], [[1], [0]]
    z1, a1, _, y_pred = fastbp.forward(X, W1, b1, W2, b2)
    fastbp.sgd_update((W1, b1, W2, b2), fastbp.backward(X, y_true, z1, a1, y_pred, W2), lr=0.1)
    return fastbp.train_step(X, y_true, W1, b1, W2, b2, 0.1) + fastbp.reference.train_step(
        X, y_true, W1, b1, W2, b2, 0.1, check_finite=False
    )


if __name__ == "__main__":
    print(train(), by_hand(), fastbp.show_config()["threads"])
