"""Compiles kernels for GPUs that are not there, and reads what the assembler made of them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Compiled:
    """What a kernel became.

    Attributes:
        registers: of a thread.
        stack: bytes of a thread that do not fit registers.
        barriers: barrier instructions in the PTX.
        ptx: the text.
        loops: instructions of the innermost loops that hold exponentials, each (instructions, exponentials).
    """

    registers: int
    stack: int
    barriers: int
    ptx: str
    loops: list[tuple[int, int]]


def compile_kernel(
    kernel: Any,
    capability: int,
    constants: dict[str, Any],
    pointers: dict[str, str],
    integers: set[str],
    folder: Path,
    **options: Any,
) -> Compiled:
    """Compiles without a driver.

    Args:
        kernel: a function under ``triton.jit``.
        capability: 90 for sm_90.
        constants: values of the compile-time arguments.
        pointers: types of the arguments that are pointers, ``*fp32`` for example; 16-byte aligned.
        integers: names of the arguments that are int32; the rest is float32.
        folder: for the machine code.
        options: of the compiler, ``num_warps`` for example.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        return pointers.get(name) or ("i32" if name in integers else "fp32")

    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: kind(name) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in pointers},
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    file = folder / "kernel.cubin"
    file.write_bytes(made.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

    def run(tool: str, *arguments: str) -> str:
        command = [str(tools / tool), *arguments, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    usage = re.search(r"REG:(\d+) STACK:(\d+)", run("cuobjdump", "-res-usage"))
    assert usage is not None
    ptx = made.asm["ptx"]
    return Compiled(
        registers=int(usage[1]),
        stack=int(usage[2]),
        barriers=len(re.findall(r"\bbar\.sync|\bbar\.warp\.sync|\bbarrier\.sync", ptx)),
        ptx=ptx,
        loops=_innermost_loops(run("nvdisasm", "-c")),
    )


def _innermost_loops(assembly: str) -> list[tuple[int, int]]:
    """Instructions and exponentials between a label and a jump back to it, of loops without a loop inside."""
    places: dict[str, int] = {}
    instructions: list[str] = []
    for line in assembly.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            places[label[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(found[1])
    spans = [
        (places[jump[1]], at)
        for at, text in enumerate(instructions)
        if (jump := re.search(r"BRA.*`\(\.(L_x_\d+)\)", text)) and places[jump[1]] <= at
    ]
    innermost = [
        (first, last)
        for first, last in spans
        if not any(first <= start and end <= last and (start, end) != (first, last) for start, end in spans)
    ]
    counted = [
        (last - first + 1, sum("MUFU.EX2" in text for text in instructions[first : last + 1]))
        for first, last in innermost
    ]
    return [(size, exponentials) for size, exponentials in counted if exponentials]
