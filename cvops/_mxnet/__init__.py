"""MXNet: its import, its operators of cvops, and the patches of its modules.

The modules ``register``, ``install`` and ``infer_shape`` import MXNet; the others import it in
:func:`mxnet` only.
"""

from cvops._mxnet.compat import find_old_packages as find_old_packages
from cvops._mxnet.compat import mxnet as mxnet
