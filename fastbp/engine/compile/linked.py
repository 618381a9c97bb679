"""How functions are compiled that only compiled code calls: to code that is linked into their callers, and
optimised there.

Numba does for each function all that it does for one that Python calls: it optimises it alone and with all
of its callees, and makes machine code of them, which nobody runs. In a driver of twenty functions that
takes a third of the time. And a C callback is a function that copies its arguments for another one, which
costs as much as a small kernel itself. Both is left out for the version of which the insides are known.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from llvmlite import ir
from llvmlite.binding import create_new_module_pass_manager, parse_assembly
from numba import _dynfunc
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.environment import lookup_environment
from numba.core.llvm_bindings import create_pass_builder

from fastbp.engine.compile import machine_code
from fastbp.engine.compile.cache import INSIDES_ARE_KNOWN
from fastbp.engine.compile.front_end import OfNumbers

# How the names of functions begin that C enters.
ENTRY = "cfunc."
# And those of global variables that hold addresses of this process: such code is not cached.
DYNAMIC = "numba.dynamic.globals"


class _Once(JITCodeLibrary):
    """Code that is optimised when all that it calls is linked in, and not before."""

    def _optimize_functions(self, module: Any) -> None:
        """Numba does so first for each function alone, to need less memory."""
        module.data_layout = self._codegen._data_layout


class _Linked(_Once):
    """Code that is never run itself."""

    def _optimize_final_module(self) -> None:
        """Left to the caller's library."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


def _no_executable(library: Any, description: Any, environment: Any) -> Any:
    """What stands for the function in Numba's tables; it cannot be called."""
    name = description.qualname.split(".")[-1]
    return _dynfunc.make_function(description.lookup_module(), name, "", 0, environment, (library,))


class _Callback(_Once):
    """Code entered by C at one place: all else becomes part of it, or what it alone calls. (Left out are
    the passes that make ready for dropping counts of references: it has none.)

    `begin` has LLVM begin with it; who needs the code waits for the end of that.
    """

    _made: Future[machine_code.Made] | None = None

    def add_ir_module(self, module: ir.Module) -> None:
        """Numba forbids the inlining of what its C function calls."""
        for function in module.functions:
            if function.name.startswith(ENTRY):
                calls = (i for block in function.blocks for i in block.instructions if i.opname == "call")
                for instruction in calls:
                    instruction.attributes.discard("noinline")
        super().add_ir_module(module)

    def begin(self) -> Future[machine_code.Made]:
        if self._made is None:
            super().finalize()
            module, self._final_module = self._final_module, self._of_entries()
            self._made = machine_code.begin(module, self._codegen, self._passes)
        return self._made

    def _optimize_final_module(self) -> None:
        """Before LLVM does."""
        for function in self._final_module.functions:
            if not function.is_declaration and not function.name.startswith(ENTRY):
                # LLVM may change the arguments of such a function, and others' code that knows a function of
                # that name would be linked with it: the loader does not ask whose it is.
                function.linkage, function.name = "internal", f"of_callback.{function.name}"

    def _finalize_final_module(self) -> None:
        """Left to `finalize`."""

    def _of_entries(self) -> Any:
        """What stands for the module when it is compiled: Numba looks there for what the loader knows. (To
        keep all of it in the cache, for others to be linked with, took a sixth of a first call.)"""
        made = self._codegen._create_empty_module(self.name)
        for name in (f.name for f in self._final_module.functions if f.name.startswith(ENTRY)):
            entry = ir.Function(made, ir.FunctionType(ir.VoidType(), []), name)
            ir.IRBuilder(entry.append_basic_block()).unreachable()
        return parse_assembly(str(made))

    def finalize(self) -> None:
        made = self.begin().result()
        self._set_compiled_object(made.object_file)
        self._dynamic_globals += [name for name in made.globals if name.startswith(DYNAMIC)]
        super()._finalize_final_module()

    def _get_module_for_linking(self) -> Any:
        raise RuntimeError("callbacks are called by their addresses")

    def serialize_using_object_code(self) -> Any:
        return self.name, "object", (self.begin().result().object_file, self._final_module.as_bitcode())

    def _passes(self, machine: Any) -> tuple[Any, Any]:
        how = {"loop_vectorize": config.LOOP_VECTORIZE, "slp_vectorize": config.SLP_VECTORIZE}
        builder = create_pass_builder(machine, opt=config.OPT, **how)
        return builder.getModulePassManager(), builder


class _AsItIs(_Callback):
    """Vector code that was emitted as the machine is to run it: it is put into the function that C enters,
    and its arguments into registers.

    All of LLVM's passes took four times as long as these and the making of machine code together, for the
    microkernels, and made them worse: each variant's addresses were found before it was known which one is to
    run, and kept on the stack, 15 to 20 ns in each product.
    """

    def add_ir_module(self, module: ir.Module) -> None:
        for function in module.functions:
            if not function.is_declaration and not function.name.startswith(ENTRY):
                function.attributes.discard("noinline")
                function.attributes.add("alwaysinline")
        super().add_ir_module(module)

    def _passes(self, machine: Any) -> tuple[Any, Any]:
        passes = create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        return passes, create_pass_builder(machine)


class _CallbackPipeline(OfNumbers):
    """With such a library at its end."""

    library = _Callback

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.library = self.library(self.state.targetctx.codegen(), "callback")
        self.state.library.enable_object_caching()


class _AsItIsPipeline(_CallbackPipeline):
    library = _AsItIs


class _Pipeline(OfNumbers):
    """With such a library at its end. (The context is this compilation's own copy.)"""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx
        context.get_executable = _no_executable
        self.state.library = _Linked(context.codegen(), "linked")


class _KernelPipeline(OfNumbers):
    """For functions that Python calls, too. Those that are linked into them are never run themselves, so
    the Python objects among their constants are made known here."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx
        self._executable, context.get_executable = context.get_executable, self._with_objects
        self.state.library = _Once(context.codegen(), "kernel")
        self.state.library.enable_object_caching()

    def _with_objects(self, library: Any, description: Any, environment: Any) -> Any:
        made = self._executable(library, description, environment)
        for name in (variable.name for variable in library._final_module.global_variables):
            if (others := lookup_environment(name)) is not None:
                library.codegen.set_env(name, others)
        return made


# What `njit` is given for it.
OPTIONS: dict[str, Any] = {"pipeline_class": _Pipeline} if INSIDES_ARE_KNOWN else {}
# What `CFunc` is given for a callback, and for one of vector code that stays as it is.
OF_CALLBACKS: dict[str, Any] = {"pipeline_class": _CallbackPipeline} if INSIDES_ARE_KNOWN else {}
AS_IT_IS: dict[str, Any] = {"pipeline_class": _AsItIsPipeline} if INSIDES_ARE_KNOWN else {}
# What a dispatcher is given whose function is linked with such ones that have Python objects.
OF_KERNELS: dict[str, Any] = {"pipeline_class": _KernelPipeline} if INSIDES_ARE_KNOWN else {}
