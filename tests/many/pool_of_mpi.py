"""Run as `mpiexec -n 3 python -m mpi4py.futures pool_of_mpi.py`: two workers train, digests are printed."""

import hashlib
import sys
from pathlib import Path

from mpi4py.futures import MPIPoolExecutor

sys.path.insert(0, str(Path(__file__).parent))

from many_networks import cases, fit_together, models_of

if __name__ == "__main__":
    listed = list(cases(8))
    for executor in (None, MPIPoolExecutor()):
        models = models_of(listed)
        fit_together(models, listed, executor=executor)
        print(hashlib.sha256(b"".join(m.parameters.flat.tobytes() for m in models)).hexdigest())
