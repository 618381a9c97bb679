"""The tutorial's texts: both languages have the same parts, with the same numbers and code in them."""

# ruff: noqa: RUF001 (Chinese punctuation)

from __future__ import annotations

import re
import string

import pytest

from fastbp.tutorial.markup import inline, joined, latex, markdown, math, number, prose
from fastbp.tutorial.texts import LANGUAGES, load

EN, ZH = (load(language) for language in LANGUAGES)
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Terms as Chinese textbooks have them, and the English beside each at its first mention.
TERMS = {
    "前向传播": "forward propagation",
    "反向传播": "backpropagation",
    "权重": "weight",
    "偏置": "bias",
    "激活函数": "activation function",
    "隐藏层": "hidden layer",
    "输出层": "output layer",
    "损失": "loss",
    "批量大小": "batch size",
    "误差项": "error term",
    "梯度": "gradient",
    "学习率": "learning rate",
    "链式法则": "chain rule",
    "转置": "transpose",
    "中心差分": "central difference",
    "梯度检验": "gradient checking",
    "梯度下降": "gradient descent",
    "对称性": "symmetry",
    "饱和": "saturation",
    "梯度消失": "vanishing gradients",
    "标准化": "standardization",
    "交叉熵": "cross-entropy",
    "混淆矩阵": "confusion matrix",
}


def numbers_in(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_parts_in_the_same_order() -> None:
    assert list(EN) == list(ZH) and len(EN) > 100
    assert all(EN.values()) and all(ZH.values())


@pytest.mark.parametrize("name", sorted(EN))
def test_a_part_holds_the_same_in_both(name: str) -> None:
    assert numbers_in(EN[name]) == numbers_in(ZH[name])
    en, zh = (re.findall(r"`([^`]+)`", text[name]) for text in (EN, ZH))
    # A command may say its language, and a sentence may name a thing twice.
    assert {code.replace(" --lang zh", "").replace(" --lang en", "") for code in en} - {
        code.replace(" --lang zh", "").replace(" --lang en", "") for code in zh
    } <= {"* (z1 > 0)"}
    assert EN[name].count("**") % 2 == ZH[name].count("**") % 2 == 0


def test_the_chinese_is_chinese_and_the_english_english() -> None:
    same_in_both = {"lang", "fast.numpy", "failures.zero", "eq.y_pred.title", "language.other"}
    for name, text in ZH.items():
        assert name in same_in_both or CHINESE.search(text), name
    for name, text in EN.items():
        assert name in same_in_both or not CHINESE.search(text), name


@pytest.mark.parametrize(("chinese", "english"), TERMS.items())
def test_a_term_stands_beside_the_english_one(chinese: str, english: str) -> None:
    assert re.search(rf"{chinese}\**（{english}[，）]", "\n".join(ZH.values()))


def test_chinese_punctuation_is_full_width() -> None:
    for name, text in ZH.items():
        said = re.sub(r"`[^`]*`|\{[^}]*\}", "", text)
        assert not re.search(r"[\u4e00-\u9fff][,;:?!]", said), name


# ---- what becomes of a text -----------------------------------------------------------------------------


def test_lines_are_joined_without_a_space_between_chinese_characters() -> None:
    assert joined("一行，\n另一行") == "一行，另一行"
    assert joined("一行\n**另一行**") == "一行**另一行**"
    assert joined("one line\nanother") == "one line another"
    assert joined("用 NumPy\n编译") == "用 NumPy 编译"


def test_light_markdown() -> None:
    assert (
        inline("`a < b` **and** *c* & d") == "<code>a &lt; b</code> <strong>and</strong> <em>c</em> &amp; d"
    )
    assert prose("one\ntwo\n\n- a\n- b") == "<p>one two</p>\n<ul><li>a</li><li>b</li></ul>"
    assert markdown("one\ntwo\n\n- a\n  b\n- c") == "one two\n\n- a b\n- c"


def test_formulas() -> None:
    assert math("z_1 = X W_1^T", block=False) == (
        "<math><mrow><msub><mi>z</mi><mn>1</mn></msub><mo>=</mo><mi>X</mi>"
        '<msubsup><mi>W</mi><mn>1</mn><mi mathvariant="normal">T</mi></msubsup></mrow></math>'
    )
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in math("⟦1 // 2⟧ E")
    assert latex("⟦∂ E // ∂ W_1⟧ = y_pred ⊙ W_2^T") == (
        r"\frac{\partial E}{\partial W_1} = y_{\text{pred}} \odot W_2^{T}"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.25, "−1.25"),
        (0.12345, "0.123"),
        (3e-7, "3e−07"),
        (1e4, "10000"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
