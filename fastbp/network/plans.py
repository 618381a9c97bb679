"""The plans that a model keeps: what is prepared for each of its uses."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastbp.engine.kernels.optimizers import L2
from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan
from fastbp.engine.settings import is_alike, rule_of
from fastbp.engine.threads.locks import lock_of
from fastbp.network.architecture import Architecture
from fastbp.network.backend import Backend, Steps
from fastbp.network.parameters import Parameters
from fastbp.network.spare_plans import SparePlans
from fastbp.network.streams import Streams
from fastbp.optimizer_base import Optimizer

# Plans that are kept: a training, its validation and predictions in between find theirs again.
PLANS = 4


class Kind(NamedTuple):
    """What a plan is made for, beside its model.

    use : "train", "trace" (forward, backward) or "predict". rule : of the optimizer, with what l2 adds to it.
    batch : rows. penalty_times : as in Steps.
    """

    use: str
    rule: str
    batch: int
    weighted: bool = False
    clip_norm: bool = False
    penalty_times: int = 1


class PlanningBackend(Backend):
    """A backend with plans, of which there is one for each use, optimizer rule and batch size.

    Plans have room for one call at a time: who works with one has `_lock`.
    """

    def __init__(self, architecture: Architecture, parameters: Parameters, streams: Streams) -> None:
        super().__init__(architecture, parameters, streams)
        self._plans: dict[tuple[Any, ...], Plan] = {}
        # The plan whose packed parameters are those of the model, if these have this version.
        self._packed: tuple[Plan, int] | None = None
        # What matters of some steps, an optimizer as it was, and the key of the plan for them.
        self._known: tuple[tuple[Any, ...], Optimizer, tuple[Any, ...]] | None = None
        self._spare: SparePlans | None = None  # of networks that share theirs
        self._lock = lock_of(self)

    def _take_plan(self, kind: Kind) -> Plan:
        """The plan of that kind.

        It is the caller's alone until `_put_back`: whoever asks meanwhile (a signal handler, a finaliser, a
        child that was forked) gets another one. If the call ends with an exception, it is not put back, so
        that nobody finds what that call has left behind.
        """
        key = self._key(kind)
        plan = self._plans.pop(key, None)
        if plan is None:
            design = self.design(kind)
            plan = (self._spare and self._spare.take(design)) or Plan(design)
            plan.key = key
        return plan

    def _key(self, kind: Kind) -> tuple[Any, ...]:
        """What a plan of that kind is kept under; of a noisy network until it is reset."""
        return kind, self.noise_key

    def _kind_of(self, steps: Steps, optimizer: Optimizer) -> Kind:
        """Of the plan for steps that are not cut."""
        rule, clips = rule_of(optimizer, self.architecture.l2), optimizer.clip_norm is not None
        return Kind("train", rule, steps.batch_size, steps.samples.weighted, clips, steps.penalty_times)

    def _rule_and_key(self, steps: Steps, optimizer: Optimizer) -> tuple[Optimizer, tuple[Any, ...]]:
        """The optimizer as it is, and what the plan for steps that are not cut is kept under: the last ones,
        if these are alike."""
        known = self._known  # read once: another thread may replace it
        matters = steps.batch_size, steps.samples.weighted, steps.penalty_times, self.noise_key
        if known and known[0] == matters and is_alike(known[1], optimizer):
            return known[1:]
        rule = optimizer.snapshot()
        key = self._key(self._kind_of(steps, rule))
        self._known = matters, rule, key
        return rule, key

    def design(self, kind: Kind) -> Design:
        """What a plan of that kind is made of."""
        architecture, rule = self.architecture, kind.rule
        return Design(
            architecture.layer_sizes,
            tuple(architecture.activation_names),
            architecture.loss.name,
            architecture.dtype,
            rule,
            kind.batch,
            kind.use,
            weighted=kind.weighted,
            dropout=architecture.dropout,
            input_noise=architecture.input_noise,
            key=self.noise_key,
            clip_norm=kind.clip_norm,
            max_norm=architecture.max_norm if kind.use == "train" and rule != "sum" else None,
            layer_norm=architecture.layer_norm,
            precision=architecture.precision,
            l2=architecture.l2 * kind.penalty_times if rule.endswith(L2) else 0.0,
        )

    def _put_back(self, plan: Plan) -> None:
        if self._spare is not None and plan.design.use == "predict":  # nothing stays in it
            self._spare.put(plan)
            return
        self._plans.pop(plan.key, None)
        while len(self._plans) >= PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[plan.key] = plan  # the one used last stands last

    def share_plans(self, spare: Any) -> None:
        self._spare = spare

    def give_plans_back(self) -> None:
        with self._lock:
            spare, plans = self._spare, self._plans
            self._spare, self._plans, self._packed = None, {}, None
        for plan in plans.values():
            if spare is not None:
                spare.put(plan)
