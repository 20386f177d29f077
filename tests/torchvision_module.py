"""The import of torchvision.

A build of PyTorch for the CPU cannot load torchvision's compiled operators. They are then defined
here from torchvision's own formulas in Python.
"""

import functools
import importlib
import importlib.util

import pytest

torch = pytest.importorskip("torch")


def plain_iou(a, b):
    """The IoU by PyTorch's own operations, as torchvision's Python."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = (x[:, 2:] - x[:, :2] for x in (a, b))
    return inside / (area_a.prod(dim=1)[:, None] + area_b.prod(dim=1)[None] - inside)


def plain_nms(boxes, scores, threshold):
    """Each box in the order of the scores, if no kept box overlaps it."""
    iou, kept = plain_iou(boxes, boxes), []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not any(iou[i, j] > threshold for j in kept):  # a NaN suppresses nothing
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


#: Operators that torchvision needs to define when it is imported; these have no implementation.
UNUSED = (
    *("_ps_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_pool"),
    *("_ps_roi_pool_backward", "_roi_align_backward", "qnms", "qroi_align", "deform_conv2d"),
    "_deform_conv2d_backward",
)


@functools.lru_cache(None)
def _import_torchvision():
    try:
        return importlib.import_module("torchvision"), None
    except RuntimeError:  # its compiled operators need the CUDA libraries of another PyTorch
        pass
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    )
    library.define(
        "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio) -> (Tensor, Tensor)"
    )
    for name in UNUSED:
        library.define(f"{name}(Tensor x) -> Tensor")
    module = importlib.import_module("torchvision")
    formula = importlib.import_module("torchvision.ops.roi_align")._roi_align

    def position_sensitive(x, rois, scale, height, width, samples):
        """The bins of ``roi_align``, each of its own channel."""
        every = formula(x, rois, scale, height, width, samples, True)
        every = every.unflatten(1, (-1, height, width))
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        return every[:, :, rows, columns, rows, columns], x.new_zeros(0)

    library.impl("ps_roi_align", position_sensitive, "CompositeImplicitAutograd")
    library.impl("nms", plain_nms, "CompositeExplicitAutograd")
    library.impl("roi_align", formula, "CompositeImplicitAutograd")
    return module, library  # the operators exist as long as the library


def import_torchvision():
    """Return torchvision, and True if it has its compiled operators; skip the test without it."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    module, library = _import_torchvision()
    return module, library is None
