"""The demo: both implementations reach the accuracy and agree, with and without matplotlib."""

import re
import subprocess
import sys

import pytest

from fastbp.cli.demo import command as demo_command
from fastbp.cli.main import main


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def figures(text):
    """Accuracies of the reference and of fastbp, and the largest difference of their parameters."""
    accuracies = [
        float(x) for x in re.findall(r"^(?:NumPy reference|fastbp) +(0\.\d+|1\.0+) ", text, re.MULTILINE)
    ]
    return accuracies, float(re.search(r"largest difference (\S+)", text)[1])


def test_demo_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["demo"]) == 0
    captured = capsys.readouterr()
    accuracies, difference = figures(captured.out)
    assert len(accuracies) == 2
    assert min(accuracies) >= 0.95
    assert 0 < difference <= demo_command.AGREEMENT
    assert captured.err == ""
    picture = (tmp_path / "fastbp-demo.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(picture[i : i + 4], "big") for i in (16, 20))
    assert width > 1200
    assert height > 800
    assert [path.name for path in tmp_path.iterdir()] == ["fastbp-demo.png"]


def test_demo_without_matplotlib(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # importing it now fails as if it were not installed
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert min(figures(out)[0]) >= 0.95
    assert "no picture: it needs matplotlib" in out
    assert "pip install" in out
    assert not list(tmp_path.iterdir())


def test_demo_with_too_little_training_says_so(capsys):
    assert main(["demo", "--epochs", "1"]) == 1
    assert "NOT AS EXPECTED: a test accuracy is below" in capsys.readouterr().out


def test_demo_notices_a_slightly_wrong_step(monkeypatch, capsys):
    """With steps longer by a hundredth, accuracy is as good, but the parameters differ."""
    real = demo_command._train

    def slightly_wrong(module, *arguments):
        with monkeypatch.context() as patch:
            if module is demo_command.fastbp:
                patch.setattr(demo_command, "LEARNING_RATE", demo_command.LEARNING_RATE * 1.01)
            return real(module, *arguments)

    monkeypatch.setattr(demo_command, "_train", slightly_wrong)
    assert main(["demo", "--epochs", "20"]) == 1
    assert "NOT AS EXPECTED: the implementations differ" in capsys.readouterr().out


def test_demo_in_a_pipe_prints_nothing_to_stderr():
    command = [sys.executable, "-m", "fastbp", "demo", "--epochs", "20"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_is_shown_on_a_terminal():
    import os
    import pty
    import termios

    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = [sys.executable, "-m", "fastbp", "demo", "--epochs", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # how Linux reports that the other end was closed
            part = b""
        if not part:
            break
        shown += part
    out, _ = process.communicate(timeout=900)
    os.close(controller)
    assert process.returncode == 0
    assert b"epoch 20/20" in shown
    assert b"\r" not in out


def test_picture_that_cannot_be_written(capsys):
    assert main(["demo", "--out", "absent/picture.png"]) == 2
    assert capsys.readouterr().err.startswith("fastbp: error: absent/picture.png: no such directory")
