"""MXNet: its import, the operators for it, and all that is put in its places.

Nothing here imports MXNet before :func:`mxnet` is called, but ``register``, ``install`` and
``infer_shape``.
"""

from cvops._mxnet.compat import find_old_packages as find_old_packages
from cvops._mxnet.compat import mxnet as mxnet
