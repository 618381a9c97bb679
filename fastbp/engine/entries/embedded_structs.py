"""What other people's compiled code holds of a network: counts and addresses, as in structs.py."""

from __future__ import annotations

from fastbp.engine.compile.struct import Struct, struct, view_of


@struct
class Slot(Struct):
    """What one call of an embedded network has for itself, SLOT_BYTES from the next one."""

    busy: int  # whether a call has it
    few: int  # address of a plan that reads the parameters in place
    many: int  # of one that packs them
    sample: int  # room for one row of inputs and one of outputs


@struct
class Embedded(Struct):
    """A network as other people's compiled code holds it."""

    predict: int  # callbacks, see entries/embedded.py
    finite: int  # of kernels/finite.py
    work: int  # of worker/train.py
    inputs: int
    outputs: int
    row: int  # bytes of a row of inputs
    parameters: int  # address of the first one
    parameters_end: int
    slot: int  # address of the first slot
    slots: int  # how many, a power of two


@struct
class Training(Struct):
    """A network in training as other people's compiled code holds it."""

    busy: int  # whether a step is being done
    train: int  # callbacks, see entries/embedded_training.py
    work: int
    finite: int
    network: int  # address of the same network's `Embedded`
    inputs: int
    outputs: int
    most_rows: int  # of a step
    mean: int  # whether the loss is divided by a step's rows
    targets: int  # address of three float64: the lowest, the highest, and 1 where each row has the sum 1
    signs: int  # whether only the lowest and the highest are allowed
    of_one: int  # addresses of plans, by the rows of a step
    of_single: int
    of_few: int
    many: int
    steps: int  # addresses of the optimizer's and the model's counts of steps
    trained: int
    first: int  # there are numbers for the optimizer's steps first <= s < last
    last: int
    factors: int  # float64
    factors_row: int  # bytes from a step to the next; 0 where all are alike
    coefficients: int  # as in Plan
    coefficients_row: int


slot_at, embedded_at, training_at = map(view_of, (Slot, Embedded, Training))
