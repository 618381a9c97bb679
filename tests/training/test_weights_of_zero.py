"""Weights of samples and classes that leave nothing to learn from."""

import numpy as np
import pytest

ROWS = 30


def problem():
    rng = np.random.default_rng(1)
    return rng.standard_normal((ROWS, 4)), rng.random((ROWS, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.zeros(ROWS)}, "sample_weight is 0 for all 30 rows that are trained on"),
        ({"validation_data": True}, r"validation_data\[2\] is 0 for all 30 rows that are judged"),
        (
            {"sample_weight": np.eye(ROWS)[0], "validation_split": 0.3},
            "sample_weight is 0 for all (21|9) rows that are (not )?held out",
        ),
        ({"class_weight": {0: 0, 1: 0}}, "class_weight is 0 for all 30 rows that are trained on"),
        ({"class_weight": [0, 1]}, "class_weight is 0 for all 30 rows that are trained on"),
    ],
    ids=str,
)
def test_weights_that_leave_nothing_to_learn_from_are_refused(module, options, message):
    X, _ = problem()
    Y = np.zeros(ROWS, int)
    if "validation_data" in options:
        options = {"validation_data": (X, Y, np.zeros(ROWS))}
    model = module.MLP([4, 9, 2], output="softmax", loss="categorical_crossentropy", seed=1)
    before = model.parameters.flat.copy()
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), **options)
    assert np.array_equal(model.parameters.flat, before)


def test_a_batch_without_weight_is_none_of_these(module):
    """Batches of an iterable may be padded; and one step at a time, nobody knows what else there is."""
    X, Y = problem()
    model = module.MLP([4, 9, 2], seed=1)
    model.fit([(X, Y, np.zeros(ROWS)), (X, Y, np.ones(ROWS))], epochs=1, optimizer=module.SGD(0.1))
    assert model.train_step(X, Y, module.SGD(0.1), sample_weight=np.zeros(ROWS)) == 0
