// torch.ops.cvops._nms: the suppression of cvops.torch.nms and batched_nms on the CPU, where the
// operators of PyTorch around box_nms would take longer than NMS of few boxes.
#include <ATen/ops/empty.h>

#include <cmath>

#include "adapter.h"
#undef KERNEL  // a macro of PyTorch's autocast
#include "box_nms.h"
#include "nms.h"

namespace cvops::pytorch {
namespace {

// The numbers of the kept boxes, the best first. `classes` is null for one class.
template <typename T>
at::Tensor kept_boxes(const T* boxes, const T* scores, const float* classes, int64 num,
                      float threshold) {
  const int coord = classes ? 2 : 1, width = coord + 4;
  const NmsOptions options = {{width, coord - 1, coord, classes ? 0 : -1},
                              {threshold, false, classes != nullptr, false},
                              -std::numeric_limits<float>::infinity(),
                              -0x1p31f,  // the class of no box
                              kNmsAsIs,
                              (int)num};
  const auto rows = cpu::scratch<T>(2 * num * width);
  const auto index = cpu::scratch<int>(num);
  for (int64 i = 0; i < num; ++i) {
    T* const row = rows.get() + i * width;
    if (classes) row[0] = classes[i];
    row[coord - 1] = scores[i];
    std::copy_n(boxes + 4 * i, 4, row + coord);
  }
  box_nms(Cpu(), rows.get() + num * width, index.get(), rows.get(), 1, num, options);
  const int64 kept = std::find(index.get(), index.get() + num, -1) - index.get();
  at::Tensor out = at::empty({kept}, at::kLong);
  std::copy_n(index.get(), kept, out.mutable_data_ptr<std::int64_t>());
  return out;
}

// Returns none for arguments that the Python functions convert or refuse.
std::optional<at::Tensor> nms(const at::Tensor& boxes, const at::Tensor& scores,
                              const std::optional<at::Tensor>& idxs, double iou_threshold) {
  const auto is_dense = [](const at::Tensor& x) {
    return x.layout() == at::kStrided && x.device().is_cpu() && !x.is_neg();
  };
  const bool is_float = std::abs(iou_threshold) <= std::numeric_limits<float>::max();
  if (!is_float && !std::isinf(iou_threshold)) return {};
  const auto type = boxes.scalar_type();
  if ((type != at::kFloat && type != at::kDouble) || scores.scalar_type() != type) return {};
  if (through_gpu || !is_dense(boxes) || !is_dense(scores)) return {};
  if (boxes.dim() != 2 || boxes.size(1) != 4 || scores.dim() != 1) return {};
  const int64 num = boxes.size(0);
  if (scores.size(0) != num || num >= kMaxRows) return {};
  if (idxs && (!is_dense(*idxs) || idxs->sizes() != scores.sizes() || idxs->is_complex()))
    return {};
  const at::Tensor b = boxes.contiguous(), s = scores.contiguous();
  const at::Tensor classes = idxs ? idxs->to(at::kFloat).contiguous() : at::Tensor();
  const auto threshold = (float)iou_threshold;
  const float* const of_class = idxs ? classes.const_data_ptr<float>() : nullptr;
  if (type == at::kDouble) {
    return kept_boxes(b.const_data_ptr<double>(), s.const_data_ptr<double>(), of_class, num,
                      threshold);
  }
  return kept_boxes(b.const_data_ptr<float>(), s.const_data_ptr<float>(), of_class, num, threshold);
}

}  // namespace

void define_nms() {
  library().def("_nms(Tensor boxes, Tensor scores, Tensor? idxs, float iou_threshold) -> Tensor?");
  library().impl("_nms", torch::dispatch(c10::DispatchKey::CPU, TORCH_FN(nms)));
  // The result does not require a gradient.
  library().impl(
      "_nms", torch::dispatch(c10::DispatchKey::Autograd, torch::CppFunction::makeFallthrough()));
}

}  // namespace cvops::pytorch
