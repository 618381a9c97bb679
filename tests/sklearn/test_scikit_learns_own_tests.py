"""scikit-learn's tests of its estimators, run on ours with nothing but the import changed."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastbp import losses
from fastbp.sklearn import MLPClassifier, MLPRegressor

THEIR_IMPORT = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"
OUR_IMPORT = "from fastbp.sklearn import MLPClassifier, MLPRegressor\n"
# The one fixture that comes from scikit-learn's conftest.py, which changes settings of the whole session.
CONFTEST = """
import pytest

@pytest.fixture
def global_random_seed():
    return 42
"""


def their_tests() -> str:
    spec = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    return Path(spec.origin).read_text(encoding="utf-8")


@pytest.mark.slow
def test_all_of_test_mlp_passes(tmp_path):
    text = their_tests()
    assert text.count(THEIR_IMPORT) == 1
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_mlp.py").write_text(text.replace(THEIR_IMPORT, OUR_IMPORT), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mlp.py"]
    lacking = [] if "poisson" in losses.LOSSES else ["test_mlp_vs_poisson_glm_equivalent"]
    for name in lacking:
        command += ["--deselect", f"test_mlp.py::{name}"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", run.stdout)[1])
    assert passed >= text.count("\ndef test_") - len(lacking), run.stdout[-2000:]
    assert "skipped" not in run.stdout.splitlines()[-1]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_checks_of_estimators(estimator, check):
    check(estimator)
