"""The machine code of C callbacks."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from llvmlite import ir
from llvmlite.binding import create_new_module_pass_manager, parse_assembly
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.llvm_bindings import create_pass_builder

from fastbp.engine.compile import machine_code


class Callback(JITCodeLibrary):
    """A module with one function that C enters. (Left out are the passes that make ready for dropping counts
    of references: it has none.)

    `begin` has LLVM begin with it; who needs the code waits for the end of that.
    """

    _made: Future[bytes] | None = None

    def __init__(self, codegen: Any, module: ir.Module, entry: str) -> None:
        super().__init__(codegen, "callback")
        self._entry = entry
        self.enable_object_caching()
        self.add_ir_module(module)

    def begin(self) -> Future[bytes]:
        if self._made is None:
            super().finalize()
            module, self._final_module = self._final_module, self._of_entry()
            self._made = machine_code.begin(module, self._codegen, self._passes)
        return self._made

    def _optimize_functions(self, module: Any) -> None:
        """Numba does so first for each function alone, to need less memory."""
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        """Left to `begin`."""

    def _finalize_final_module(self) -> None:
        """Left to `finalize`."""

    def _of_entry(self) -> Any:
        """What stands for the module when it is compiled: Numba looks there for what the loader knows."""
        made = self._codegen._create_empty_module(self.name)
        entry = ir.Function(made, ir.FunctionType(ir.VoidType(), []), self._entry)
        ir.IRBuilder(entry.append_basic_block()).unreachable()
        return parse_assembly(str(made))

    def finalize(self) -> None:
        self._set_compiled_object(self.begin().result())
        super()._finalize_final_module()

    def serialize_using_object_code(self) -> Any:
        return self.name, "object", (self.begin().result(), self._final_module.as_bitcode())

    def _passes(self, machine: Any) -> tuple[Any, Any]:
        how = {"loop_vectorize": config.LOOP_VECTORIZE, "slp_vectorize": config.SLP_VECTORIZE}
        builder = create_pass_builder(machine, opt=config.OPT, **how)
        return builder.getModulePassManager(), builder


class AsItIs(Callback):
    """Vector code that was emitted as the machine is to run it: what is on the stack is put into registers.

    All of LLVM's passes took four times as long as these and the making of machine code together, for the
    microkernels, and made them worse: each variant's addresses were found before it was known which one is to
    run, and kept on the stack, 15 to 20 ns in each product.
    """

    def _passes(self, machine: Any) -> tuple[Any, Any]:
        passes = create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        return passes, create_pass_builder(machine)
