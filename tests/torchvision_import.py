"""The import of torchvision where a build of PyTorch for the CPU cannot load its operators."""

import importlib

#: Operators that torchvision needs to define when it is imported; these have no implementation.
UNUSED = (
    *("ps_roi_align", "_ps_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_pool"),
    *("_ps_roi_pool_backward", "_roi_align_backward", "qnms", "qroi_align", "deform_conv2d"),
    "_deform_conv2d_backward",
)


def torchvision():
    """Import torchvision; return it, and the library of the operators that had to be defined.

    The library is None if torchvision has its own operators.
    """
    try:
        return importlib.import_module("torchvision"), None
    except RuntimeError:  # its compiled operators need the CUDA libraries of another PyTorch
        pass
    library = importlib.import_module("torch").library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    )
    for name in UNUSED:
        library.define(f"{name}(Tensor x) -> Tensor")
    return importlib.import_module("torchvision"), library
