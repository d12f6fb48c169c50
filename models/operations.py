"""How many operations a network takes, counted while it runs without a single product being computed."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry


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
        self._products: dict[Any, tuple[int, Tensor]] = {}

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
            shaped, named = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
            made = func(*shaped, **named)
            self._products[key] = count(*args, **kwargs, out_val=made), made
        operations, shaped = self._products[key]
        self.total += operations
        device = next(given.device for given in args if isinstance(given, Tensor))
        return tree_map_only(Tensor, lambda tensor: tensor.new_zeros(tensor.shape, device=device), shaped)


def _shapes(arguments: Any) -> Any:
    """The arguments with shapes in place of tensors, as something that can be looked up."""
    if isinstance(arguments, Tensor):
        return tuple(arguments.shape), arguments.dtype
    if isinstance(arguments, list | tuple):
        return tuple(_shapes(part) for part in arguments)
    return arguments
