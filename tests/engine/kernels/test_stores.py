"""How values get into memory."""

import llvmlite.binding as llvm
from llvmlite import ir
from processes import on_x86

from fastbp.engine.kernels import activations
from fastbp.engine.simd import instructions
from fastbp.engine.simd.vector import I64, Isa, Vectors


def assembly_of_relu_deltas():
    """d = d where a > 0, else 0, as a core with AVX2 runs it."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64, I64]), "deltas")
    builder = ir.IRBuilder(function.append_basic_block())
    d, a = function.args
    ops = Vectors(builder, "float32")
    ops.store(activations.ACTIVATIONS["relu"].backward(ops, None, ops.load(a), ops.load(d)), d)
    builder.ret_void()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu="znver3", opt=3)
    return machine.emit_assembly(llvm.parse_assembly(str(module)))


@on_x86
def test_lanes_that_stay_are_stored_too(monkeypatch):
    """AVX2's masked store is slow. LLVM would choose it: if it no longer does, `_as_it_is` can go."""
    monkeypatch.setattr(instructions, "isa", lambda: Isa(32, 16, True))
    code = assembly_of_relu_deltas()
    assert "vmovups" in code and "vmaskmov" not in code
    monkeypatch.setattr(Vectors, "_as_it_is", lambda ops, value: value)
    assert "vmaskmov" in assembly_of_relu_deltas()
