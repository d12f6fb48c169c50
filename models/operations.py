"""How many operations a network takes, counted while it runs without a single product being computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten

_WRITES = frozenset({"fill_", "normal_", "uniform_", "zero_"})


class UnwrittenWeights(TorchFunctionMode):
    """Within it, a network is built whose matrices hold whatever was in memory: most of its cost is writing them.

    Memory that nobody writes to costs nothing. Vectors are written, and everything that is no initial value of a
    parameter is computed, such as tables of angles.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See ``TorchFunctionMode``."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _WRITES or getattr(func, "__module__", "") == nn.init.__name__:
            written = args[0] if args else kwargs["tensor"]
            if isinstance(written, nn.Parameter) and written.ndim > 1:
                return written
        return func(*args, **kwargs)


class CountedProducts(TorchDispatchMode):
    """Within it, matrix products, convolutions and attention are counted, and answered with zeros.

    What torch's own ``FlopCounterMode`` counts, by its formulas. That one computes everything, or, on the meta device,
    takes Python for each operation. Here all else is computed, which is next to nothing, and products that repeat, as
    they do from layer to layer, are looked up. What a network makes of its input is meaningless meanwhile.

    Attributes:
        total: operations so far; a product and its sum are two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._composite: dict[Any, bool] = {}
        self._products: dict[Any, tuple[int, Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing here is compiled, and torch's compiler takes more than a second to import.
        return False

    @contextmanager
    def count_repeats_once(self, model: nn.Module) -> Iterator[None]:
        """Within it, a part in a list of parts is not run where one of its form was, on arguments of the same shapes.

        Args:
            model: whose parts; it is as it was afterwards.
        """
        known: dict[Hashable, tuple[int, Any]] = {}
        lists = [each for each in model.modules() if isinstance(each, nn.ModuleList)]
        parts = {id(part): part for each in lists for part in each}.values()
        for part in parts:
            part.forward = partial(self._run_once, known, _form(part), part.forward)
        try:
            yield
        finally:
            for part in parts:
                del part.forward

    def _run_once(
        self,
        known: dict[Hashable, tuple[int, Any]],
        form: Hashable,
        forward: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        key = form, _shapes(args), _shapes(tuple(kwargs.items()))
        try:
            seen = known.get(key)
        except TypeError:  # something that cannot be compared
            return forward(*args, **kwargs)
        if seen is None:
            before = self.total
            made = forward(*args, **kwargs)
            known[key] = self.total - before, tree_map_only(Tensor, lambda tensor: _like(tensor, "meta"), made)
            return made
        operations, shaped = seen
        self.total += operations
        device = next(given.device for given in (*args, *kwargs.values()) if isinstance(given, Tensor))
        return tree_map_only(Tensor, lambda tensor: _like(tensor, device), shaped)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See ``TorchDispatchMode``."""
        kwargs = kwargs or {}
        count = flop_registry.get(func._overloadpacket)
        if count is None:
            # Made of others, which may be products.
            if self._composite.get(func, True):
                with self:
                    made = func.decompose(*args, **kwargs)
                self._composite[func] = made is not NotImplemented
                if made is not NotImplemented:
                    return made
            return func(*args, **kwargs)
        key = func, _shapes(args), _shapes(tuple(kwargs.items()))
        if key not in self._products:
            made = _result(func, args, kwargs)
            self._products[key] = count(*args, **kwargs, out_val=made), made
        operations, shaped = self._products[key]
        self.total += operations
        device = next(given.device for given in args if isinstance(given, Tensor))
        return tree_map_only(Tensor, lambda tensor: _like(tensor, device), shaped)


def _like(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Zeros of the shape and type of a tensor."""
    return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)


def _form(module: nn.Module) -> Hashable:
    """What decides the operations of a module: equal for two that only differ in their numbers.

    Attributes that are equal to nothing but themselves make a form of its own.
    """
    return tuple(
        (
            type(part),
            tuple((name, value) for name, value in vars(part).items() if not name.startswith("_")),
            tuple((name, _shapes(value)) for name, value in part.named_parameters(recurse=False)),
            tuple((name, _shapes(value)) for name, value in part.named_buffers(recurse=False)),
        )
        for part in module.modules()
    )


def _convolved(image: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """The shape of a convolution."""
    sides = zip(image.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return [
        len(image),
        len(weight),
        *((side + 2 * around - apart * (kernel - 1) - 1) // step + 1 for side, kernel, step, around, apart in sides),
    ]


def _result(func: Any, args: Any, kwargs: Any) -> Any:
    """What a product has for a result, on the meta device.

    The usual ones are written out: torch works out shapes in Python, with modules that take a second to import.
    """
    match func._overloadpacket, args:
        case (_aten.mm, (first, second)) | (_aten.addmm, (_, first, second)):
            shape = [first.shape[0], second.shape[1]]
        case (_aten.bmm, (first, second)) | (_aten.baddbmm, (_, first, second)):
            shape = [*first.shape[:2], second.shape[2]]
        case (_aten.convolution, (first, weight, _, stride, padding, dilation, False, *_)):
            shape = _convolved(first, weight, stride, padding, dilation)
        case _:
            shaped, named = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
            return func(*shaped, **named)
    return torch.empty(shape, dtype=first.dtype, device="meta")


def _shapes(arguments: Any) -> Any:
    """The arguments with shapes in place of tensors, as something that can be looked up."""
    if isinstance(arguments, Tensor):
        return tuple(arguments.shape), arguments.dtype
    if isinstance(arguments, list | tuple):
        return tuple(_shapes(part) for part in arguments)
    return arguments
