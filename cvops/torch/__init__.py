"""The ops as operators of PyTorch: ``torch.ops.cvops``, with gradients, for compiled graphs."""

from cvops.torch import operators as _operators

_operators.define()
