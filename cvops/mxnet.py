"""The ops as operators of MXNet 1.9.1: in its graph, on its engine, with its gradients.

``import cvops.mxnet`` imports MXNet (on NumPy 1.22 to 2.x, Python 3.9 to 3.13), builds the
operators once, and loads them. The build needs a C++ compiler; its result is in
``CVOPS_CACHE_DIR``. Each op then has an operator with the prefix ``cvops_``, for arrays, for
symbols, and so for hybridized blocks::

    F.contrib.cvops_MultiBoxTarget(anchor, label, cls_pred)          # F is mx.nd or mx.sym
    mx.npx.cvops_multibox_target(anchor, label, cls_pred)            # mx.np arrays

:func:`install` replaces MXNet's operators by them, so that a model runs on them unchanged.
"""

from cvops._mxnet import infer_shape as infer_shape
from cvops._mxnet import onnx as onnx
from cvops._mxnet.build import library as library
from cvops._mxnet.install import install as install
from cvops._mxnet.install import installed as installed
from cvops._mxnet.install import uninstall as uninstall
from cvops._mxnet.symbols import convert_symbol as convert_symbol
from cvops.backends.operators import OPERATORS as OPERATORS
