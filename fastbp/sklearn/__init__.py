"""scikit-learn's estimators on fastbp's engine: `MLPClassifier` and `MLPRegressor`, with one import changed.

Needs scikit-learn 1.7 or newer (`pip install fastbp[sklearn]`). What is the same as there, to how many
digits, and what differs on purpose is in README.md beside this file.

    base.py         what both estimators are: from what `fit` is given to a trained network
    classifier.py, regressor.py     labels, probabilities; quantities
    parameters.py   which values the constructor's arguments may have, and which losses there are
    inputs.py       samples, targets and weights
    initial.py      scikit-learn's initial weights
    stochastic.py   adam and sgd: what comes after each epoch, and when training ends
    epochs.py       epochs in compiled code, and the learning rates
    watching.py     callbacks and the progress bar
    lbfgs.py        the loss and gradient of all samples, given to SciPy
    remembering.py  an estimator as it was before a call that fails
"""

try:
    import sklearn as _  # noqa: F401 - to say what is missing, before anything of it is imported from
except ImportError as error:
    raise ImportError(
        "fastbp.sklearn needs scikit-learn, which is not installed: pip install 'fastbp[sklearn]'"
    ) from error

from fastbp.sklearn.classifier import MLPClassifier
from fastbp.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
