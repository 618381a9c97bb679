"""The other parts of the page: pictures, speed, failures, digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastbp.tutorial.drawing import charts, flow
from fastbp.tutorial.drawing import network as network_drawing
from fastbp.tutorial.markup import escape, inline, prose
from fastbp.tutorial.runs.digits import EPOCHS, LAYERS, Digits
from fastbp.tutorial.runs.failures import Failure, MissingDerivative
from fastbp.tutorial.runs.speed import ROUNDS, Size, Timing
from fastbp.tutorial.runs.xor import Xor

CODE_OF_FUNCTIONS = """\
# {functions}
import fastbp

z1, a1, z2, y_pred = fastbp.forward(X, W1, b1, W2, b2)
dW1, db1, dW2, db2 = fastbp.backward(X, y_true, z1, a1, y_pred, W2)
fastbp.sgd_update((W1, b1, W2, b2), (dW1, db1, dW2, db2), lr=0.5)

# {step}
loss = fastbp.train_step(X, y_true, W1, b1, W2, b2, lr=0.5)

# {fit}
model = fastbp.MLP([2, 3, 1], seed=0)
model.fit(X, y_true, epochs=1000, optimizer=fastbp.SGD(lr=0.5))
"""


def layer(text: Mapping[str, str]) -> str:
    head = [cell.strip() for cell in text["symbols.head"].split("|")]
    rows = [[cell.strip() for cell in line.split("|")] for line in text["symbols.rows"].splitlines()]
    table = "<tr>" + "".join(f"<th>{inline(cell)}</th>" for cell in head) + "</tr>"
    for name, *cells in rows:
        rest = "".join(f"<td>{inline(cell)}</td>" for cell in cells)
        table += f"<tr><td><code>{escape(name)}</code></td>{rest}</tr>"
    return (
        prose(text["layer.text"])
        + f'<figure class="wide scroll">{flow.inline(text)}</figure>'
        + f'<div class="scroll"><table class="symbols">{table}</table></div>'
    )


def network(text: Mapping[str, str], xor: Xor) -> str:
    legend = f'<p class="caption">{inline(text["network.legend"])}</p>'
    return prose(text["network.text"]) + network_drawing.draw(xor, text) + legend


def fast(text: Mapping[str, str], timings: Sequence[tuple[Size, list[Timing]]]) -> str:
    comments = {name: text[f"fast.code.{name}"] for name in ("functions", "step", "fit")}
    code = CODE_OF_FUNCTIONS.format(**comments)
    figures = ""
    for size, of_size in timings:
        rows = [(t.what, t.numpy, t.fast, text["fast.times"].format(ratio=t.ratio)) for t in of_size]
        caption = text["fast.bars"].format(size=size)
        drawn = charts.bars(rows, names=(text["fast.numpy"], "fastbp"), title=caption)
        figures += f'<figure class="bars"><figcaption>{inline(caption)}</figcaption>{drawn}</figure>'
    note = inline(text["fast.note"].format(rounds=ROUNDS))
    return (
        prose(text["fast.text"])
        + f"<pre><code>{escape(code)}</code></pre>{figures}"
        + f'<p class="caption">{note}</p>'
    )


# ---- failures ------------------------------------------------------------------------------------------


def failures(text: Mapping[str, str], runs: Sequence[Failure], missing: MissingDerivative) -> str:
    cards = [_failure(text, run) for run in runs] + [_missing(text, missing)]
    return prose(text["failures.text"]) + "".join(cards)


def _two(text: Mapping[str, str]) -> tuple[str, str]:
    return text["failures.wrong"], text["failures.right"]


def _failure(text: Mapping[str, str], run: Failure) -> str:
    wrong, right = _two(text)
    drawn = [
        charts.curves(
            [charts.Curve(wrong, run.wrong.loss, "bad"), charts.Curve(right, run.right.loss, "good")],
            title=text["failures.loss"],
            x_label=text["failures.epoch"],
            log=run.log,
        ),
        charts.histograms(
            [(wrong, run.wrong.activations, "bad"), (right, run.right.activations, "good")],
            title=text["failures.activations"],
            x_label=text["failures.value"],
        ),
        _gradients(text, run.wrong.gradients, run.right.gradients),
    ]
    said = [(text["failures.warns"], line) for line in run.wrong.messages]
    said.append((text["failures.diagnoses"], "\n".join(run.wrong.verdicts)))
    notes = [text["failures.start" if run.at_start else "failures.end"]]
    if run.wrong.accuracy is not None and run.right.accuracy is not None:
        notes.append(text["failures.accuracy"].format(wrong=run.wrong.accuracy, right=run.right.accuracy))
    return _card(text, run.name, run.code, drawn, said, notes)


def _gradients(text: Mapping[str, str], wrong: Sequence[float], right: Sequence[float]) -> str:
    labels = _two(text)
    return charts.layers(
        [(labels[0], wrong, "bad"), (labels[1], right, "good")],
        title=text["failures.gradients"],
        x_label=text["failures.layer"],
        zero=text["failures.zero"],
    )


def _missing(text: Mapping[str, str], missing: MissingDerivative) -> str:
    wrong, right = _two(text)
    drawn = [
        charts.curves(
            [charts.Curve(wrong, missing.wrong, "bad"), charts.Curve(right, missing.right, "good")],
            title=text["failures.loss"],
            x_label=text["failures.epoch"],
        ),
        charts.histograms(
            [(wrong, missing.wrong_error, "bad"), (right, missing.right_error, "good")],
            title=text["failures.errors"],
            x_label=text["failures.value"],
        ),
        _gradients(text, missing.wrong_gradients, missing.right_gradients),
    ]
    code = ("dz1 = dz2 @ W2.T", "dz1 = (dz2 @ W2.T) * (z1 > 0)")
    said = [(text["failures.checks"], missing.said)]
    notes = [text["failures.start"]]
    return _card(text, "derivative", code, drawn, said, notes, angle=missing.angle)


def _card(
    text: Mapping[str, str],
    name: str,
    code: tuple[str, str],
    drawn: Sequence[str],
    said: Sequence[tuple[str, str]],
    notes: Sequence[str],
    **values: float,
) -> str:
    what = inline(text[f"failure.{name}.what"].format(**values) if values else text[f"failure.{name}.what"])
    heard = ""
    for who, line in said:
        heard += f'<dt>{inline(who)}</dt><dd lang="en"><pre>{escape(line)}</pre></dd>'
    wrong, right = (escape(line) for line in code)
    noted = inline("\n".join(notes))
    return (
        f'<article class="failure" id="failure-{name}"><h3>{inline(text[f"failure.{name}.title"])}</h3>'
        f'<p>{what}</p><div class="charts three">{"".join(drawn)}</div>'
        f'<p class="caption">{noted}</p>'
        f'<pre class="diff"><code class="wrong">{wrong}</code><code class="right">{right}</code></pre>'
        f'<p class="cure"><b>{inline(text["failures.right"])}</b> {inline(text[f"failure.{name}.cure"])}</p>'
        f'<dl class="said" aria-label="{escape(text["failures.says"])}">{heard}</dl></article>'
    )


def refused(text: Mapping[str, str], said: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f'<dt><code>{escape(code)}</code></dt><dd lang="en"><pre>{escape(line)}</pre></dd>'
        for code, line in said
    )
    return prose(text["refused.text"]) + f'<dl class="said">{rows}</dl>'


# ---- digits --------------------------------------------------------------------------------------------


def digits(text: Mapping[str, str], run: Digits) -> str:
    said = text["digits.text"].format(
        rows=run.rows,
        tested=run.tested,
        layers="-".join(map(str, LAYERS)),
        epochs=EPOCHS,
        seconds=run.seconds,
        accuracy=run.accuracy,
    )
    curve = charts.curves(
        [
            charts.Curve(text["digits.train"], run.loss, "good"),
            charts.Curve(text["digits.test"], run.val_loss, "bad"),
        ],
        title=text["digits.curve"],
        x_label=text["failures.epoch"],
        log=True,
    )
    weights = "".join(charts.tile(w, "", label=f"unit {i}") for i, w in enumerate(run.weights))
    mistakes = "".join(
        charts.tile(
            image,
            f"<b>{true}</b> → <b class=bad>{guess}</b> <span>{share:.0%}</span>",
            label=f"{true}, {guess}",
            ink=True,
        )
        for image, true, guess, share in run.mistakes
    )
    return (
        prose(said)
        + f'<div class="charts two">{curve}{_confusion(text, run)}</div>'
        + f'<p class="caption">{inline(text["digits.confusion"])}</p>'
        + f'<div class="tiles">{weights}</div>'
        + f'<p class="caption">{inline(text["digits.weights"].format(units=len(run.weights)))}</p>'
        + f'<div class="tiles mistakes">{mistakes}</div>'
        + f'<p class="caption">{inline(text["digits.mistakes"])}</p>'
    )


def _confusion(text: Mapping[str, str], run: Digits) -> str:
    head = "<tr><td></td>" + "".join(f"<th>{d}</th>" for d in range(10)) + "</tr>"
    rows = ""
    for true, line in enumerate(run.confusion):
        cells = "".join(
            f'<td class="{"hit" if true == guess else "miss" if n else ""}">{n or ""}</td>'
            for guess, n in enumerate(line)
        )
        rows += f"<tr><th>{true}</th>{cells}</tr>"
    return f'<table class="confusion" aria-label="{escape(text["digits.confusion"])}">{head}{rows}</table>'


def outlook(text: Mapping[str, str]) -> str:
    return prose(text["next.text"])
