"""The model of a step of several ranks, and the page that it writes."""

import dataclasses
import json

import mpi_model
import pytest
from mpi_formulas import Machine, pays_from, simulated, step
from mpi_model import NETWORKS

MACHINE = Machine(flops=1e11, entry=1e-5, add=1e-10, update=1e-10, scatter=0.0)
SIZES = [784, 256, 10]
NETWORK = NETWORKS["10 Gbit Ethernet"]


@pytest.mark.parametrize("ranks", [1, 2, 4, 64, 1024])
@pytest.mark.parametrize("sizes", [[8, 8, 1], SIZES])  # below 64 KB and above
def test_ranks_that_do_not_scatter_take_what_the_model_says(ranks, sizes):
    expected = step(MACHINE, sizes, 4096, ranks, ranks, NETWORK)
    assert simulated(MACHINE, sizes, 4096, ranks, NETWORK, steps=3) == pytest.approx(expected)


def test_ranks_that_scatter_wait_for_each_other():
    scattering = dataclasses.replace(MACHINE, scatter=0.1)
    times = [simulated(m, SIZES, 4096, 64, NETWORK) for m in (MACHINE, scattering)]
    assert times[0] < times[1] < 1.5 * times[0]


def test_a_second_rank_pays_from_some_batch_on():
    batch = pays_from(MACHINE, SIZES, NETWORK)
    assert step(MACHINE, SIZES, batch, 2, 2, NETWORK) < step(MACHINE, SIZES, batch, 1, 1, NETWORK)
    fewer = batch // 2
    assert step(MACHINE, SIZES, fewer, 2, 2, NETWORK) >= step(MACHINE, SIZES, fewer, 1, 1, NETWORK)
    assert pays_from(MACHINE, SIZES, NETWORKS["100 Gbit InfiniBand"]) < batch


def test_the_page_is_what_its_record_says():
    record = json.loads(mpi_model.RECORD.read_text(encoding="utf-8"))
    below = mpi_model.PAGE.read_text(encoding="utf-8").partition(mpi_model.MARK)[2]
    assert below.strip() == mpi_model.page(record).strip()
