"""Graphs in eight bits: products and convolutions with weights, their inputs scaled by what sampling shows them.

Weights use seven of their eight bits. A CPU with AVX2 or AVX-512 but without VNNI multiplies unsigned inputs by
signed weights in pairs and adds each pair in 16 bits, cut at 32,767 (``vpmaddubsw``): two products of 255 and 127 do
not fit, two of 255 and 64 do. With all eight bits the same file is right on one machine and wrong on another.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.export.sampler_states import State, onnx_module, sampler_states
from pipeline.sample.run import Run

QUANTISED = ("MatMul", "Gemm", "Conv", "ConvTranspose")
FULL_PRECISION = ".drift."
"""Part of the names of the weights that stay as they are: the drift network of predicted kernels."""

CALIBRATION_IMAGES, CALIBRATION_STEPS, CALIBRATION_SEED = 8, 8, 1


def quantise_graph(data: bytes, run: Run, options: Mapping[str, Any] | None = None) -> bytes:
    """A graph whose trunk and head compute with signed weights of -64 to 64, one scale a channel, and eight-bit inputs.

    Ranges of inputs are the largest that occur while images are sampled from the run. What has no weights (attention's
    products, norms, kernels laid over the image, blending) stays in full precision, as does the drift network.

    Args:
        data: of ``onnx_graph``.
        run: whose network it holds.
        options: of onnxruntime's ``quantize_static`` in the place of those chosen here, to compare them.

    Returns:
        The quantised model, serialised, with the same inputs, outputs and metadata, and ``int8`` beside them.

    Raises:
        JobError: a package that is missing.
    """
    onnx, quantization = onnx_module("onnx"), onnx_module("onnxruntime.quantization")
    model = onnx.load_model_from_string(data)
    chosen, _ = divide_nodes(model)
    states = sampler_states(run, images=CALIBRATION_IMAGES, steps=CALIBRATION_STEPS, seed=CALIBRATION_SEED)
    logger = logging.getLogger()
    level = logger.level
    # It warns through the root logger that the graph might be prepared first; torch's exporter has done so.
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = Path(folder, "int8.onnx")
            quantization.quantize_static(
                model,
                out,
                _reader(quantization, states),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_quantize=chosen,
                extra_options={"ForceQuantizeNoInputCheck": False, "DedicatedQDQPair": False},
                **{
                    "per_channel": True,
                    "reduce_range": True,
                    "activation_type": quantization.QuantType.QUInt8,
                    "weight_type": quantization.QuantType.QInt8,
                    **(options or {}),
                },
            )
            made = onnx.load(out)
    finally:
        logger.setLevel(level)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(made, {**kept, "int8": " ".join(chosen)})
    made.producer_name, made.doc_string = model.producer_name, ""
    onnx.checker.check_model(made)
    return made.SerializeToString()


def divide_nodes(model: Any) -> tuple[list[str], list[str]]:
    """Names of the nodes with weights: those that compute in eight bits, and those that stay in full precision."""
    # Products with more axes lay splats over pixels: places, not weights.
    weights = {value.name: len(value.dims) for value in model.graph.initializer}
    chosen: list[str] = []
    kept: list[str] = []
    for node in model.graph.node:
        axes = 4 if "Conv" in node.op_type else 2
        if node.op_type in QUANTISED and len(node.input) > 1 and weights.get(node.input[1]) == axes:
            full = any(FULL_PRECISION in name for name in node.input)
            (kept if full else chosen).append(node.name)
    return chosen, kept


def _reader(quantization: Any, states: Sequence[State]) -> Any:
    """The states as onnxruntime asks for them, one by one."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[State] = iter(states)

        def get_next(self) -> dict[str, Any] | None:
            state = next(self._left, None)
            return None if state is None else state.inputs

    return Reader()
