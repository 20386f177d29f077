"""Types of the compiled extension, which ``bindings/python`` defines.

An op is a function of ``cpu``, for NumPy arrays, and a method of :class:`Gpu`, for buffers. The
arrays are contiguous and aligned, and of the dtypes of the op's contract; the caller checks them.
Results come first: the op writes them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, TypeVar, Union, overload

import numpy as np

_F = TypeVar("_F", bound=Callable[..., Any])

class Buffer:
    """C-contiguous memory of a GPU."""

    def __init__(
        self, pointer: int, shape: tuple[int, ...], dtype: Any, owner: Any = None, /
    ) -> None: ...
    @property
    def pointer(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int:
        """The number of elements."""
    @property
    def dtype(self) -> Any: ...
    @property
    def owner(self) -> Any:
        """The array or the like that keeps the memory alive."""

_Array = Union[np.ndarray, Buffer]
#: The fields of the C++ structs of these names.
_AdaptivePooling = tuple[int, int, int, int]
_BilinearResize = tuple[int, int, int, int, bool]
_MaskTargetShape = tuple[int, int, int, int, int]
_MaskTargetOptions = tuple[int, int, int, int, bool]
_MatchShape = tuple[int, int, int, int]
_MatchOptions = tuple[float, float, bool, bool]
_MatchingShape = tuple[int, int, int]
_MatchingOptions = tuple[float, bool, int]
_BoxDecode = tuple[float, float, float, float, float, bool]
_MatrixNms = tuple[float, bool, bool, bool]
_RotatedFormat = tuple[bool, bool]
_DeformablePsroi = tuple[int, int, int, int, int, int, int, float, int, int, float, int]
_NmsColumns = tuple[int, int, int, int]
_NmsRule = tuple[float, bool, bool, bool]
_Candidates = tuple[float, int, int]
_ProposalOptions = tuple[int, int, bool, int, int]
_SoftNms = tuple[float, float, bool, bool, bool]
_BoxFusion = tuple[float, int, bool, bool, bool]
_Variances = tuple[float, ...]
_TargetShape = tuple[int, int, int, int, int]
_TargetOptions = tuple[float, float, float, float, float, float, float, float]
_Psroi = tuple[int, int, int, int, int, int, int, float]
_PasteShape = tuple[int, int, int, int, int]
_SampleShape = tuple[int, int, int, int]
_SampleOptions = tuple[Union[int, float], ...]
_RoiAlign = tuple[int, int, int, int, int, int, float, int, bool, bool]
_RoiPooling = tuple[int, int, int, int, int, int, float]
_RoiPoolingGrad = tuple[int, int, int, int, int]
_RroiAlign = tuple[int, int, int, int, int, int, float, int]

class Ops:
    """The ops of a device: functions of the submodule ``cpu``, or methods of :class:`Gpu`."""

    def adaptive_avg_pooling(
        self, out: _Array, data: _Array, planes: int, op: _AdaptivePooling, /
    ) -> None: ...
    def adaptive_avg_pooling_backward(
        self, grad: _Array, out_grad: _Array, planes: int, op: _AdaptivePooling, /
    ) -> None: ...
    def bilinear_resize(
        self, out: _Array, data: _Array, planes: int, op: _BilinearResize, /
    ) -> None: ...
    def bilinear_resize_backward(
        self, grad: _Array, out_grad: _Array, planes: int, op: _BilinearResize, /
    ) -> None: ...
    def bilinear_upsample(
        self, out: _Array, data: _Array, planes: int, height: int, width: int, scale: int, /
    ) -> None: ...
    def bilinear_upsample_backward(
        self, grad: _Array, out_grad: _Array, planes: int, height: int, width: int, scale: int, /
    ) -> None: ...
    def bipartite_matching(
        self,
        columns: _Array,
        rows: _Array,
        data: _Array,
        shape: _MatchingShape,
        options: _MatchingOptions,
        /,
    ) -> None: ...
    def box_decode(self, out: _Array, data: _Array, anchors: _Array, op: _BoxDecode, /) -> None: ...
    def box_encode(
        self,
        targets: _Array,
        masks: _Array,
        samples: _Array,
        matches: _Array,
        anchors: _Array,
        refs: _Array,
        means: _Array,
        stds: _Array,
        /,
    ) -> None: ...
    def box_iou(self, out: _Array, lhs: _Array, rhs: _Array, center: bool, /) -> None: ...
    def box_iou_backward(
        self,
        lhs_grad: _Array,
        rhs_grad: _Array,
        out_grad: _Array,
        lhs: _Array,
        rhs: _Array,
        center: bool,
        kind: int,
        /,
    ) -> None: ...
    def box_iou_kind(
        self, out: _Array, lhs: _Array, rhs: _Array, center: bool, kind: int, /
    ) -> None: ...
    def box_iou_rotated(
        self, out: _Array, lhs: _Array, rhs: _Array, format: _RotatedFormat, /
    ) -> None: ...
    def box_nms(
        self,
        out: _Array,
        index: Optional[_Array],
        data: _Array,
        batch: int,
        num: int,
        columns: _NmsColumns,
        rule: _NmsRule,
        valid_thresh: float,
        background_id: float,
        conversion: int,
        limit: int,
        /,
    ) -> None: ...
    def box_nms_backward(
        self, grad: _Array, out_grad: _Array, index: _Array, batch: int, num: int, width: int, /
    ) -> None: ...
    def confusion_matrix(
        self,
        matrix: _Array,
        prediction: _Array,
        label: _Array,
        num_classes: int,
        ignore_label: int,
        /,
    ) -> None: ...
    def deformable_psroi_pooling(
        self,
        pooled: _Array,
        data: _Array,
        rois: _Array,
        trans: Optional[_Array],
        op: _DeformablePsroi,
        /,
    ) -> None: ...
    def deformable_psroi_pooling_backward(
        self,
        grad: _Array,
        trans_grad: Optional[_Array],
        out_grad: _Array,
        data: _Array,
        rois: _Array,
        trans: Optional[_Array],
        op: _DeformablePsroi,
        /,
    ) -> None: ...
    def float_to_half(self, out: _Array, data: _Array, is_bfloat16: bool, /) -> None: ...
    def half_to_float(self, out: _Array, data: _Array, is_bfloat16: bool, /) -> None: ...
    def label_from_color(
        self, out: _Array, image: _Array, colormap: _Array, unknown: int, /
    ) -> None: ...
    def match_anchors(
        self,
        out: _Array,
        anchors: _Array,
        boxes: _Array,
        shape: _MatchShape,
        options: _MatchOptions,
        /,
    ) -> None: ...
    def matrix_nms(
        self,
        out: _Array,
        index: Optional[_Array],
        data: _Array,
        batch: int,
        num: int,
        columns: _NmsColumns,
        valid_thresh: float,
        background_id: float,
        topk: int,
        op: _MatrixNms,
        post_thresh: float,
        rows: int,
        /,
    ) -> None: ...
    def mask_target(
        self,
        targets: _Array,
        weights: _Array,
        rois: _Array,
        gt_masks: _Array,
        matches: _Array,
        cls_targets: _Array,
        shape: _MaskTargetShape,
        options: _MaskTargetOptions,
        /,
    ) -> None: ...
    def multibox_detection(
        self,
        out: _Array,
        cls_prob: _Array,
        loc_pred: _Array,
        anchor: _Array,
        clip: bool,
        threshold: float,
        variances: _Variances,
        rule: _NmsRule,
        suppresses: bool,
        limit: int,
        /,
    ) -> None: ...
    def multibox_prior(
        self, out: _Array, maps: np.ndarray, shapes: np.ndarray, clip: bool, /
    ) -> None: ...
    def multibox_target(
        self,
        loc_target: _Array,
        loc_mask: _Array,
        cls_target: _Array,
        anchor: _Array,
        label: _Array,
        cls_pred: _Array,
        shape: _TargetShape,
        options: _TargetOptions,
        /,
    ) -> None: ...
    def multiclass_nms(
        self,
        out: _Array,
        counts: _Array,
        boxes: _Array,
        scores: _Array,
        candidates: _Candidates,
        rule: _NmsRule,
        most: int,
        rows: int,
        /,
    ) -> None: ...
    def nms_rotated(
        self,
        out: _Array,
        index: Optional[_Array],
        data: _Array,
        batch: int,
        num: int,
        columns: _NmsColumns,
        rule: _NmsRule,
        valid_thresh: float,
        background_id: float,
        conversion: int,
        limit: int,
        format: _RotatedFormat,
        /,
    ) -> None: ...
    def proposal(
        self,
        out: _Array,
        scores: Optional[_Array],
        cls_prob: _Array,
        bbox_pred: _Array,
        im_info: _Array,
        scales: np.ndarray,
        ratios: np.ndarray,
        batch: int,
        height: int,
        width: int,
        options: _ProposalOptions,
        threshold: float,
        /,
    ) -> None: ...
    def psroi_pooling(self, pooled: _Array, data: _Array, rois: _Array, op: _Psroi, /) -> None: ...
    def psroi_pooling_backward(
        self, grad: _Array, out_grad: _Array, rois: _Array, op: _Psroi, /
    ) -> None: ...
    def roi_align(self, pooled: _Array, data: _Array, rois: _Array, op: _RoiAlign, /) -> None: ...
    def roi_align_backward(
        self, grad: _Array, out_grad: _Array, rois: _Array, op: _RoiAlign, /
    ) -> None: ...
    def roi_pooling(
        self,
        pooled: _Array,
        argmax: Optional[_Array],
        data: _Array,
        rois: _Array,
        op: _RoiPooling,
        /,
    ) -> None: ...
    def roi_pooling_backward(
        self, grad: _Array, out_grad: _Array, argmax: _Array, size: _RoiPoolingGrad, /
    ) -> None: ...
    def soft_nms(
        self,
        out: _Array,
        index: Optional[_Array],
        data: _Array,
        batch: int,
        num: int,
        columns: _NmsColumns,
        valid_thresh: float,
        background_id: float,
        topk: int,
        op: _SoftNms,
        rows: int,
        /,
    ) -> None: ...
    def rroi_align(self, pooled: _Array, data: _Array, rois: _Array, op: _RroiAlign, /) -> None: ...
    def paste_masks(
        self,
        out: _Array,
        masks: _Array,
        boxes: _Array,
        shape: _PasteShape,
        threshold: float,
        /,
    ) -> None: ...
    def rcnn_target(
        self,
        rois: _Array,
        cls_target: _Array,
        matches: _Array,
        box_target: _Array,
        box_mask: _Array,
        proposals: _Array,
        labels: _Array,
        noise: _Array,
        shape: _SampleShape,
        options: _SampleOptions,
        /,
    ) -> None: ...
    def rpn_target(
        self,
        cls_target: _Array,
        box_target: _Array,
        box_mask: _Array,
        anchors: _Array,
        labels: _Array,
        noise: _Array,
        shape: _SampleShape,
        options: _SampleOptions,
        /,
    ) -> None: ...
    def weighted_boxes_fusion(
        self,
        out: _Array,
        data: _Array,
        batch: int,
        num: int,
        columns: _NmsColumns,
        valid_thresh: float,
        background_id: float,
        topk: int,
        op: _BoxFusion,
        rows: int,
        /,
    ) -> None: ...

cpu: Ops

class Device:
    """A GPU, or a replacement for tests."""

class DriverDevice(Device):
    """A GPU of NVIDIA's driver; see the environment variable ``CVOPS_DEPENDENT_LAUNCHES``."""

    def __init__(self, number: int, functions: Functions) -> None: ...

class AroundDevice(Device):
    """A device that gives each launch to Python as a function, for benchmarks."""

    def __init__(
        self, device: Device, around: Callable[[str, Callable[[], None]], None]
    ) -> None: ...

class CallbackDevice(Device):
    """A device whose kernels a Python function runs, on memory of the CPU.

    ``launch`` gets the kernel's name, grid, block, bytes of shared memory, the bytes of each
    argument, whether each argument is a pointer, and the stream. ``scratch_gap`` bytes separate the
    parts of scratch memory. ``on_scratch`` gets the address and the bytes of each part.
    """

    def __init__(
        self,
        launch: Callable[
            [
                str,
                tuple[int, int, int],
                tuple[int, int, int],
                int,
                list[bytes],
                list[bool],
                int,
            ],
            object,
        ],
        multiprocessors: int,
        max_shared: int,
        scratch_gap: int = 0,
        on_scratch: Optional[Callable[[int, int], object]] = None,
    ) -> None: ...

class Modules:
    """Files of machine code, loaded into the driver on first use."""

    def __init__(self) -> None: ...
    def add(self, file: str, kernels: Sequence[str], arch: int) -> None:
        """Add a file with some kernels; ``arch`` is 90 for sm_90, 0 for a file of several."""

class Functions:
    """The driver's handles of kernels, for each device."""

    @overload
    def __init__(self, find: Callable[[str, int], int]) -> None: ...
    @overload
    def __init__(self, modules: Modules) -> None: ...

class Gpu(Ops):
    """One call on a device: the ops, on a stream, with scratch memory from ``allocate(bytes)``."""

    def __init__(self, device: Device, stream: int, allocate: Callable[[int], int]) -> None: ...
    @property
    def scratch_bytes(self) -> int:
        """The bytes of scratch memory of the last op."""

def device_count() -> int:
    """Return the number of GPUs; 0 without a driver."""

def device_attribute(device: int, attribute: int, /) -> int:
    """Return an attribute of a GPU, by its number in ``CUdevice_attribute``."""

def enter_device(device: int, /) -> Optional[int]:
    """Make the primary context of a GPU current.

    Returns:
        The context that was current, for :func:`set_context`; None if it was that of the GPU.
    """

def set_context(context: int, /) -> None:
    """Make a context current."""

def synchronize() -> None:
    """Wait for the default stream of the current GPU."""

def set_default_device(device: Device, /) -> None:
    """Set the device of MXNet's operators."""

def set_default_functions(functions: Functions, /) -> None:
    """Set the kernels of MXNet's operators."""

def num_threads() -> int:
    """Return the most threads of an op on the CPU."""

def set_num_threads(num_threads: int, /) -> None:
    """Set the most threads of an op on the CPU."""

def empty(shape: tuple[int, ...], dtype: Any, /) -> np.ndarray:
    """Call :func:`numpy.empty`; take the memory of 1 MiB or more from the pool of results."""

def empty_all(*types: tuple[tuple[int, ...], Any]) -> tuple[np.ndarray, ...]:
    """Allocate several arrays by :func:`empty`, or as parts of one such array."""

def run_on_cpu(
    device: Any,
    to_numpy: Callable[[Any], np.ndarray],
    from_numpy: Optional[Callable[[np.ndarray], Any]],
    implementation: Callable[..., Any],
    types: Any,
    arrays: Iterable[Any],
    options: tuple[Any, ...],
    /,
) -> Any:
    """Return the results of ``implementation(device, *arrays, *options)``.

    The implementation gets NumPy arrays: ``to_numpy`` converts others, but for tensors of a type of
    :func:`describe_by` that the extension can convert by itself. ``from_numpy`` converts each
    result; None keeps them.
    """

def memoized(
    function: _F,
    arrays: bool = False,
    parts: Optional[tuple[Callable[..., Any], Callable[..., Any]]] = None,
) -> _F:
    """Return the function, with a memory of its results.

    It remembers a call whose arguments are of exactly these types: int, float, str, bool, None, and
    tuples of these. With ``arrays``, the function reads the types and the shapes of arrays only.
    Then arrays of NumPy, and of the types of :func:`describe_by`, are equal arguments if they have
    the same type, dtype and shape.

    With ``parts``, ``function(...)`` is equal to ``parts[1](parts[0](...), shapes)`` with the
    shapes of all arrays, and ``parts[0]`` reads the types of the arrays only. Its results are
    remembered too.
    """

def describe_by(type: type, flag: str, /) -> None:
    """Let ``dtype`` and ``shape`` describe arrays of exactly that type whose ``flag`` is True.

    ``dtype`` is an object that is compared by its identity, ``shape`` a tuple of integers. DLPack's
    functions for C describe the arrays instead, if the type has them.
    """

def kept_result_bytes() -> int:
    """Return the number of bytes of freed results that the pool keeps."""

def result_pool_size() -> int:
    """Return the maximum of that number."""

def set_result_pool_size(size: int, /) -> None:
    """Set the maximum of that number."""

def release_results() -> None:
    """Free the memory that the pool keeps."""

def simd() -> str:
    """Return the name of the vector instructions in use."""

def simd_names() -> list[str]:
    """List the vector instructions of this CPU, in rising order."""

def set_simd(name: str, /) -> None:
    """Select vector instructions by their name."""
