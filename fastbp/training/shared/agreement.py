"""Whether all ranks have made the same call, asked before anything trains."""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import numba
from numpy.typing import NDArray

from fastbp.engine.simd.vector import isa
from fastbp.inputs.samples import Samples
from fastbp.mpi.shards import Shards
from fastbp.network.network import Network
from fastbp.optimizer_base import State
from fastbp.training.options import FitOptions
from fastbp.training.settings import described, differences, of_data
from fastbp.version import __version__

Array = NDArray[Any]


def agreed_shards(model: Network, samples: Samples, options: FitOptions) -> Shards:
    """The shards of this rank. ValueError on all ranks if something differs that the bits depend on."""
    ranks = options.ranks
    assert ranks is not None
    if options.shards % ranks.size:
        raise ValueError(
            f"shards={options.shards} cannot be divided among {ranks.size} ranks: give {ranks.size}, "
            f"{2 * ranks.size}, {4 * ranks.size}, ..."
        )
    if not model.backend.takes_ranks:
        raise ValueError("comm is for fastbp.MLP: the reference in NumPy trains in one process")
    if options.local and samples.weighted and model.architecture.reduction == "weighted_mean":
        raise ValueError("reduction='weighted_mean' needs all of a batch's weights, not with local=True")
    everyone = ranks.share(_call(model, samples, options))
    for rank, other in enumerate(everyone[1:], 1):
        different = list(differences(everyone[0]["same"], other["same"], of=("on rank 0", f"on rank {rank}")))
        if different:
            raise ValueError(
                "every rank must make the same call, but they differ:\n  " + "\n  ".join(different)
            )
    rows = [other["rows"] for other in everyone] if options.local else None
    return Shards(options.shards, ranks, rows, ranks.threads())


def _call(model: Network, samples: Samples, options: FitOptions) -> dict[str, Any]:
    """What must be the same on all ranks, as JSON, and how many rows this one has."""
    cpu, parameters = isa(), model.parameters
    state = options.optimizer.state(parameters.owner, len(parameters), parameters.flat.dtype)
    same = {
        "fastbp": __version__,
        "numba": numba.__version__,
        "CPU": {
            "kind": platform.machine(),
            "bytes of a vector register": cpu.bytes,
            "vector registers": cpu.registers,
            "fused multiply-add": cpu.fma,
            "two passes": cpu.two_passes,
        },
        "model": model.architecture.to_json(),
        "parameters": of_data(parameters.flat),
        "random state (give the model a seed)": _digest(str(model.streams.state())),
        "optimizer": described(options.optimizer),
        "optimizer's state": _digest_of_state(state),
        **{
            name: described(getattr(options, name))
            for name in ("epochs", "steps", "batch_size", "shuffle", "shards", "local", "validation_split")
        },
        "weighted": samples.weighted,
        **_of_data(samples, options),
    }
    return {"same": same, "rows": len(samples)}


def _of_data(samples: Samples, options: FitOptions) -> dict[str, Any]:
    if not options.local:
        return {"X": of_data(samples.X), "Y": of_data(samples.Y)}
    steps = -(-len(samples) // options.batch_size_of_rank)
    return {"columns of X and Y": [samples.X.shape[1], samples.Y.shape[1]], "steps of an epoch": steps}


def _digest_of_state(state: State) -> str:
    return _digest(str(state.steps), *state.buffers)


def _digest(*parts: str | Array) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part.tobytes())
    return f"digest {digest.hexdigest()[:16]}"
