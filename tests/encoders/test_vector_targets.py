"""What the vector type becomes on CPUs that are not there: compiled for each, and the assembly read."""

import platform
import re
from typing import Any

import llvmlite.binding as llvm
import numba
import pytest
from numba import types

from encoders.cpu.moments import backward
from encoders.cpu.sums import forward

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="starts from code made for x86-64"),
]

ARRAY = types.Array(types.float32, 1, "C")
NUMBER = types.int64
# The last arguments are left out: the sums of the fit, not those of the differentiable renderer or of large images.
COLOUR_SIZES = (NUMBER, NUMBER, NUMBER, NUMBER, types.UniTuple(NUMBER, 3), NUMBER, *[types.Omitted(None)] * 2)
KERNELS = {
    "forward": (forward, (ARRAY,) * 6 + COLOUR_SIZES),
    "backward": (backward, (ARRAY,) * 7 + COLOUR_SIZES),
}

# As encoders.compiled has it, without the wrappers for Python. Untyped: type checkers do not know all of them.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

EIGHT_LANES = r"^vfn?m(add|sub)\w*\s.*%ymm"
NEON = r"^fml[as](\.4s|\s+v\d+\.4s)"


@pytest.fixture(scope="module")
def intermediate():
    """LLVM's code of each kernel, without the functions that count references, which are made for this machine."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    result = {}
    for name, (kernel, signature) in KERNELS.items():
        alone = numba.njit(**OPTIONS)(kernel.py_func)
        alone.compile(signature)
        (code,) = alone.inspect_llvm().values()
        code = re.sub(r"(?ms)^define [^\n]*@(NRT_\w+)\(.*?^}\n", r"declare void @\1(ptr)\n", code)
        code = re.sub(r'^target (triple|datalayout) = ".*"\n', "", code, flags=re.MULTILINE)
        assert not re.search(r"\bcall\b[^\n]*@llvm\.x86", code)
        result[name] = code
    return result


def instructions(code, triple, processor):
    """Assembly lines that are instructions."""
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    module = llvm.parse_assembly(code)
    module.triple = triple
    module.data_layout = str(machine.target_data)
    lines = (line.strip() for line in machine.emit_assembly(module).splitlines() if line.startswith("\t"))
    return [line for line in lines if not line.startswith((".", "#", "//"))]


def matching(lines, pattern):
    return sum(bool(re.search(pattern, line)) for line in lines)


@pytest.mark.parametrize("kernel", KERNELS)
class TestTargets:
    def test_avx2_fuses_eight_lanes(self, intermediate, kernel):
        lines = instructions(intermediate[kernel], "x86_64-unknown-linux-gnu", "x86-64-v3")
        assert matching(lines, EIGHT_LANES) >= 40
        assert matching(lines, r"%ymm(1[6-9]|2\d|3[01])|%zmm") == 0

    def test_avx512_adds_its_registers(self, intermediate, kernel):
        lines = instructions(intermediate[kernel], "x86_64-unknown-linux-gnu", "x86-64-v4")
        narrow = instructions(intermediate[kernel], "x86_64-unknown-linux-gnu", "x86-64-v3")
        assert matching(lines, EIGHT_LANES) >= 40
        assert matching(lines, r"%ymm(1[6-9]|2\d|3[01])") >= 100
        # What does not fit 16 registers goes to the stack and back.
        spilled = r"%ymm\d+, \d*\(%rsp\)"
        assert matching(lines, spilled) < matching(narrow, spilled)

    @pytest.mark.parametrize(
        ("triple", "processor"), [("aarch64-unknown-linux-gnu", "neoverse-n1"), ("arm64-apple-darwin", "apple-m1")]
    )
    def test_neon_fuses_twice_four_lanes(self, intermediate, kernel, triple, processor):
        lines = instructions(intermediate[kernel], triple, processor)
        wide = instructions(intermediate[kernel], "x86_64-unknown-linux-gnu", "x86-64-v3")
        assert matching(lines, NEON) >= 1.9 * matching(wide, EIGHT_LANES)
        # No lane is computed on its own: what is scalar is per Gaussian, not per pixel.
        assert matching(lines, r"^f(n?m)(add|sub)\s+s\d") < 0.2 * matching(lines, NEON)

    def test_no_target_needs_a_library_for_arithmetic(self, intermediate, kernel):
        for triple, processor in (
            ("x86_64-unknown-linux-gnu", "x86-64-v2"),
            ("x86_64-unknown-linux-gnu", "x86-64-v3"),
            ("aarch64-unknown-linux-gnu", "neoverse-n1"),
        ):
            lines = instructions(intermediate[kernel], triple, processor)
            called = [line for line in lines if re.match(r"(call|callq|bl|blr)\s", line)]
            # Planes are cleared by memset; on x86-64 its address lies in a register.
            assert len(called) <= 1
            assert not any(re.search(r"exp|floor|ceil|rint|fma|sqrt", line) for line in called)
