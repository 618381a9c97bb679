"""Layer normalisation in NumPy: n = (s - mean) / sqrt(variance + EPS) over the units of each row.

What a layer makes of it is z = g * n + b, with a gain and a bias for each unit. Ba, Kiros and Hinton, 2016,
arXiv 1607.06450, equation 4; as torch.nn.LayerNorm. The engine's twin is fastbp/engine/kernels/layer_norm.py.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

EPS = 1e-5


def normalise(s: Array) -> tuple[Array, Array]:
    """n (batch, units) and 1 / sqrt(variance + EPS) (batch,), from s (batch, units)."""
    centred = s - s.mean(axis=1, keepdims=True)
    inverse_std = 1 / ((centred * centred).mean(axis=1) + s.dtype.type(EPS)) ** 0.5
    return centred * inverse_std[:, None], inverse_std


def backward(dn: Array, n: Array, inverse_std: Array) -> Array:
    """ds from dn (batch, units): what a common shift or scaling of s would do is taken out of it."""
    shift = dn.mean(axis=1, keepdims=True)
    scaling = n * (dn * n).mean(axis=1, keepdims=True)
    ds: Array = inverse_std[:, None] * (dn - shift - scaling)
    return ds
