"""Eight float32 lanes as one Numba value, so that compiled kernels use vector registers by construction.

Numba leaves vectorisation to LLVM, which misses the short, strided loops of a splat kernel. Here a Numba type
maps onto LLVM's ``<8 x float>``; the operators and functions below emit one vector instruction each. With AVX-512
LLVM uses its 32 registers and wider encodings at the same 8 lanes (the boxes of Gaussians are too narrow for 16:
docs/performance.md); with SSE and on ARM it splits a vector into two of 4 lanes: same results up to the last bits.

Vectors live as local variables of one ``@njit`` function: they are not stored in containers or returned to
Python.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalCall=false
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

LANES = 8

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT_VECTOR = ir.VectorType(_INT, LANES)
# contract lets a multiplication and an addition become one fused instruction. Neither reassoc (it breaks the
# rounding in exp) nor arcp (reciprocal estimates differ between makers of CPUs).
_FLAGS = ("contract", "nsz")

_TAYLOR = (0.6931471805599453, 0.2402265069591007, 0.05550410866482158, 0.009618129107628477, 0.0013333558146428443)
_LONG_TAYLOR = (*_TAYLOR, 0.00015403530393381608, 1.525273380405984e-05)
"""Coefficients of 2^f = 1 + sum of these times f^k: ln(2)^k / k!."""


def _operation(function: Callable[..., Any]) -> Any:
    """Numba's ``intrinsic``; untyped, as it takes the typing context out of the signature."""
    return intrinsic(function)


class Float32x8Type(types.Type):
    """Numba's type of a vector of eight float32."""

    def __init__(self) -> None:
        super().__init__(name="float32x8")


float32x8 = Float32x8Type()


@register_model(Float32x8Type)
class _Float32x8Model(models.PrimitiveModel):
    def __init__(self, manager, front_end_type) -> None:
        super().__init__(manager, front_end_type, _VECTOR)


def _binary(function, emit) -> None:
    class Template(ConcreteTemplate):
        key = function
        cases = [signature(float32x8, float32x8, float32x8)]  # noqa: RUF012 - Numba's interface

    infer_global(function)(Template)

    @lower_builtin(function, float32x8, float32x8)
    def _lower(context, builder, sig, args):
        return emit(builder, *args)


_binary(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
_binary(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS))
_binary(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS))
_binary(operator.truediv, lambda builder, a, b: builder.fdiv(a, b, flags=_FLAGS))


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, value)] * LANES)


def _int_constant(value: int) -> ir.Constant:
    return ir.Constant(_INT_VECTOR, [ir.Constant(_INT, value)] * LANES)


def _call(builder, name, result, arguments):
    declared = builder.module.declare_intrinsic(name, (), ir.FunctionType(result, [a.type for a in arguments]))
    return builder.call(declared, arguments)


def _broadcast(builder, value):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_INT, 0))
    mask = ir.Constant(ir.VectorType(_INT, LANES), [ir.Constant(_INT, 0)] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)


def _address(context, builder, array_type, array, index):
    pointer = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(pointer, [index]), ir.PointerType(_VECTOR))


def _is_flat_float32(array) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.dtype == types.float32


@_operation
def load(typingctx, array, index):
    """Eight consecutive numbers of a flat contiguous float32 array."""
    if not (_is_flat_float32(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, sig, args):
        offset = context.cast(builder, args[1], sig.args[1], types.intp)
        pointer = _address(context, builder, sig.args[0], args[0], offset)
        return builder.load(pointer, align=4, typ=_VECTOR)

    return float32x8(array, index), codegen


@_operation
def entry(typingctx, array, index):
    """One number of a flat contiguous float32 array; the index is not below 0, which plain indexing would check."""
    if not (_is_flat_float32(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, sig, args):
        offset = context.cast(builder, args[1], sig.args[1], types.intp)
        pointer = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(pointer, [offset]), align=4, typ=_FLOAT)

    return types.float32(array, index), codegen


@_operation
def store(typingctx, array, index, value):
    """Writes eight consecutive numbers of a flat contiguous float32 array."""
    if not (_is_flat_float32(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, sig, args):
        offset = context.cast(builder, args[1], sig.args[1], types.intp)
        builder.store(args[2], _address(context, builder, sig.args[0], args[0], offset), align=4)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@_operation
def splat(typingctx, value):
    """One number in all lanes."""
    if not isinstance(value, types.Number):
        return None

    def codegen(context, builder, sig, args):
        return _broadcast(builder, context.cast(builder, args[0], sig.args[0], types.float32))

    return float32x8(value), codegen


@_operation
def lanes(typingctx):
    """0, 1, 2, ... 7."""

    def codegen(context, builder, sig, args):
        return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(lane)) for lane in range(LANES)])

    return float32x8(), codegen


@_operation
def fused(typingctx, a, b, c):
    """``a * b + c``, fused where the CPU can (llvm.fmuladd: never a library call)."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.fmuladd.v{LANES}f32", _VECTOR, list(args))

    return float32x8(a, b, c), codegen


def _two(name):
    def typed(typingctx, a, b):
        def codegen(context, builder, sig, args):
            return _call(builder, f"llvm.{name}.v{LANES}f32", _VECTOR, list(args))

        return float32x8(a, b), codegen

    return typed


def _one(name):
    def typed(typingctx, a):
        def codegen(context, builder, sig, args):
            return _call(builder, f"llvm.{name}.v{LANES}f32", _VECTOR, list(args))

        return float32x8(a), codegen

    return typed


minimum = _operation(_two("minnum"))
maximum = _operation(_two("maxnum"))
square_root = _operation(_one("sqrt"))
magnitude = _operation(_one("fabs"))
floor = _operation(_one("floor"))
ceil = _operation(_one("ceil"))


def _emit_exp(builder, value, coefficients=_TAYLOR):
    def fma(a, b, c):
        return _call(builder, f"llvm.fmuladd.v{LANES}f32", _VECTOR, [a, b, c])

    # exp(x) = 2^n 2^f with n = round(x log2 e), |f| <= 1/2; 2^f by its Taylor polynomial (relative error below 3e-6
    # with degree 5, 5e-9 with degree 7; rounding the argument adds 8e-8 |x|), 2^n by adding n to the exponent bits.
    value = _call(builder, f"llvm.maxnum.v{LANES}f32", _VECTOR, [value, _constant(-87.0)])
    value = _call(builder, f"llvm.minnum.v{LANES}f32", _VECTOR, [value, _constant(88.0)])
    scaled = builder.fmul(value, _constant(1.4426950408889634))
    whole = _call(builder, f"llvm.rint.v{LANES}f32", _VECTOR, [scaled])
    fraction = builder.fsub(scaled, whole)
    result = _constant(coefficients[-1])
    for coefficient in (*coefficients[-2::-1], 1.0):
        result = fma(result, fraction, _constant(coefficient))
    exponent = builder.shl(builder.fptosi(whole, _INT_VECTOR), _int_constant(23))
    return builder.bitcast(builder.add(builder.bitcast(result, _INT_VECTOR), exponent), _VECTOR)


@_operation
def exponential(typingctx, value):
    """exp, relative error below 8e-6; arguments are held to [-87, 88]."""

    def codegen(context, builder, sig, args):
        return _emit_exp(builder, args[0])

    return float32x8(value), codegen


@_operation
def exponential_to_rounding(typingctx, value):
    """exp, relative error below 2e-7 + 8e-8 |value|; 0 below -87, arguments above 88 are held to that."""

    def codegen(context, builder, sig, args):
        shown = builder.fcmp_ordered(">=", args[0], _constant(-87.0))
        return builder.select(shown, _emit_exp(builder, args[0], _LONG_TAYLOR), _constant(0.0))

    return float32x8(value), codegen


@_operation
def keep_rolled(typingctx):
    """Keeps LLVM from unrolling the loop that calls this: for loops of so few rounds that the set-up costs more."""

    def codegen(context, builder, sig, args):
        # Text that LLVM cannot look into, of no instruction: a loop with calls is left as it is.
        builder.asm(ir.FunctionType(ir.VoidType(), []), "", "", (), True)
        return context.get_dummy_value()

    return types.void(), codegen


def _halves(builder, value, size):
    def pick(first):
        mask = ir.Constant(ir.VectorType(_INT, size), [ir.Constant(_INT, first + lane) for lane in range(size)])
        return builder.shuffle_vector(value, value, mask)

    return pick(0), pick(size)


@_operation
def total(typingctx, value):
    """Sum of the lanes, always in the same order."""

    def codegen(context, builder, sig, args):
        result, size = args[0], LANES
        while size > 1:
            size //= 2
            low, high = _halves(builder, result, size)
            result = builder.fadd(low, high)
        return builder.extract_element(result, ir.Constant(_INT, 0))

    return types.float32(value), codegen


@_operation
def largest(typingctx, value):
    """Greatest of the lanes."""

    def codegen(context, builder, sig, args):
        result, size = args[0], LANES
        while size > 1:
            size //= 2
            low, high = _halves(builder, result, size)
            name = f"llvm.maxnum.v{size}f32" if size > 1 else "llvm.maxnum.f32"
            if size == 1:
                low = builder.extract_element(low, ir.Constant(_INT, 0))
                high = builder.extract_element(high, ir.Constant(_INT, 0))
                return _call(builder, name, _FLOAT, [low, high])
            result = _call(builder, name, ir.VectorType(_FLOAT, size), [low, high])
        return result

    return types.float32(value), codegen


@_operation
def scatter_totals(typingctx, array, index, stride, scale, a, b, c, d, e, f, g, h):
    """Writes the sums of eight vectors, times ``scale``, to ``array[index + i * stride]``.

    A transpose folded into additions: always in the same order.
    """
    if not (_is_flat_float32(array) and isinstance(index, types.Integer) and isinstance(stride, types.Integer)):
        return None

    def codegen(context, builder, sig, args):
        offset = context.cast(builder, args[1], sig.args[1], types.intp)
        step = context.cast(builder, args[2], sig.args[2], types.intp)
        factor = context.cast(builder, args[3], sig.args[3], types.float32)
        rows, size = list(args[4:]), LANES
        while size > 8:
            size //= 2
            rows = [builder.fadd(*_halves(builder, row, size)) for row in rows]
        # Each round halves the number of vectors: interleave two, add, so that lane i ends with the sum of vector i.
        distance = 1
        while len(rows) > 1:
            low = [
                first + lane + part
                for first in (0, 8)
                for lane in range(0, 8, 2 * distance)
                for part in range(distance)
            ]
            low.sort(key=lambda lane: (lane % 8 // (2 * distance), lane // 8, lane))
            masks = [
                ir.Constant(ir.VectorType(_INT, 8), [ir.Constant(_INT, lane + shift) for lane in low])
                for shift in (0, distance)
            ]
            rows = [
                builder.fadd(*(builder.shuffle_vector(one, other, mask) for mask in masks))
                for one, other in zip(rows[0::2], rows[1::2], strict=True)
            ]
            distance *= 2
        pointer = context.make_array(sig.args[0])(context, builder, args[0]).data
        for lane in range(8):
            element = builder.fmul(builder.extract_element(rows[0], ir.Constant(_INT, lane)), factor)
            builder.store(element, builder.gep(pointer, [offset]))
            offset = builder.add(offset, step)
        return context.get_dummy_value()

    return types.void(array, index, stride, scale, a, b, c, d, e, f, g, h), codegen


def _is_x86(builder) -> bool:
    return builder.module.triple.startswith(("x86_64", "i686"))


@_operation
def flush_denormals(typingctx):
    """Makes this thread treat numbers below 1e-38 as 0 and returns the state before, for ``restore_denormals``.

    Arithmetic on denormal numbers takes a hundred cycles on x86 CPUs. Elsewhere it does nothing.
    """

    def codegen(context, builder, sig, args):
        if not _is_x86(builder):
            return ir.Constant(_INT, 0)
        place = builder.alloca(_INT)
        kind = ir.FunctionType(ir.VoidType(), [place.type])
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind), [place])
        before = builder.load(place, typ=_INT)
        # Bit 15 flushes results, bit 6 operands.
        builder.store(builder.or_(before, ir.Constant(_INT, 0x8040)), place)
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind), [place])
        return before

    return types.uint32(), codegen


@_operation
def restore_denormals(typingctx, before):
    """Undoes ``flush_denormals``."""
    if not isinstance(before, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        if _is_x86(builder):
            place = builder.alloca(_INT)
            builder.store(context.cast(builder, args[0], sig.args[0], types.uint32), place)
            kind = ir.FunctionType(ir.VoidType(), [place.type])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind), [place])
        return context.get_dummy_value()

    return types.void(before), codegen
