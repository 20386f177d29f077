"""The ops under MXNet's names: ``from cvops import contrib``.

The module replaces ``mxnet.nd.contrib`` and ``mxnet.contrib``. ``contrib.MultiBoxPrior``,
``contrib.nd.MultiBoxPrior`` and ``contrib.ndarray.MultiBoxPrior`` are one function for any array.
``contrib.sym`` and ``contrib.symbol`` have the operators of ``cvops.mxnet`` for MXNet's symbols.
"""

import sys
from types import ModuleType
from typing import Any

from cvops.ops.adaptive_avg_pooling import adaptive_avg_pooling as AdaptiveAvgPooling2D
from cvops.ops.bilinear_resize import bilinear_resize as BilinearResize2D
from cvops.ops.bipartite_matching import bipartite_matching
from cvops.ops.box_decode import box_decode
from cvops.ops.box_encode import box_encode
from cvops.ops.box_iou import box_iou
from cvops.ops.box_nms import box_nms
from cvops.ops.deformable_psroi_pooling import deformable_psroi_pooling as DeformablePSROIPooling
from cvops.ops.mask_target import mask_target as mrcnn_mask_target
from cvops.ops.multibox_detection import multibox_detection as MultiBoxDetection
from cvops.ops.multibox_prior import multibox_prior as MultiBoxPrior
from cvops.ops.multibox_target import multibox_target as MultiBoxTarget
from cvops.ops.proposal import multi_proposal as MultiProposal
from cvops.ops.proposal import proposal as Proposal
from cvops.ops.psroi_pooling import psroi_pooling as PSROIPooling
from cvops.ops.roi_align import roi_align as ROIAlign
from cvops.ops.roi_pooling import roi_pooling as ROIPooling
from cvops.ops.rroi_align import rroi_align as RROIAlign

__all__ = [
    "AdaptiveAvgPooling2D",
    "BilinearResize2D",
    "DeformablePSROIPooling",
    "MultiBoxDetection",
    "MultiBoxPrior",
    "MultiBoxTarget",
    "MultiProposal",
    "PSROIPooling",
    "Proposal",
    "ROIAlign",
    "ROIPooling",
    "RROIAlign",
    "bipartite_matching",
    "box_decode",
    "box_encode",
    "box_iou",
    "box_nms",
    "mrcnn_mask_target",
]


class _Symbols(ModuleType):
    """The operators for symbols. The first use builds and registers them."""

    __all__ = __all__

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        import cvops.mxnet  # noqa: F401 (registers the operators)
        from cvops._mxnet import mxnet

        return getattr(mxnet().sym.contrib, f"cvops_{name}")


nd = ndarray = sys.modules[__name__]
sym = symbol = _Symbols(f"{__name__}.symbol")
# For the import statement: ``from cvops.contrib.ndarray import MultiBoxPrior``.
for _name in ("nd", "ndarray", "sym", "symbol"):
    sys.modules[f"{__name__}.{_name}"] = globals()[_name]
