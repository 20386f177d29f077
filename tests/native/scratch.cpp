// Measures the scratch memory of each op of the CPU for increasing sizes. Prints "op size
// array-bytes peak-scratch-bytes kept-bytes".
#include <malloc.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <numeric>
#include <vector>

#include "ops.h"
#include "result_pool.h"

// The allocated bytes of the process, and their peak.
static std::atomic<long long> held{0}, peak{0};

static void* count_allocation(void* memory) {
  if (!memory) throw std::bad_alloc();
  const long long now = held += (long long)malloc_usable_size(memory);
  for (long long known = peak; known < now && !peak.compare_exchange_weak(known, now);) {
  }
  return memory;
}

static void count_and_free(void* memory) {
  if (memory) held -= (long long)malloc_usable_size(memory);
  std::free(memory);
}

void* operator new(size_t size) { return count_allocation(std::malloc(size)); }
void* operator new(size_t size, std::align_val_t alignment) {
  const size_t to = (size_t)alignment;
  return count_allocation(std::aligned_alloc(to, (size + to - 1) / to * to));
}
void operator delete(void* memory) noexcept { count_and_free(memory); }
void operator delete(void* memory, size_t) noexcept { count_and_free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { count_and_free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { count_and_free(memory); }

namespace {

using namespace cvops;

// Writes different boxes with sides of 0.01, spread over the unit square.
void spread(Floats& rows, int width, int first) {
  for (size_t i = 0; i * width < rows.size(); ++i) {
    float* box = &rows[i * width + first];
    box[0] = (float)(i * 7919 % 10007) / 10007, box[1] = (float)(i * 104729 % 10009) / 10009;
    box[2] = box[0] + 0.01f, box[3] = box[1] + 0.01f;
  }
}

template <typename... Vectors>
long long bytes_of(const Vectors&... vectors) {
  return (0 + ... + (long long)(vectors.size() * sizeof(vectors[0])));
}

template <typename Call>
void measure(const char* op, int size, long long bytes, const Call& call) {
  call();  // allocates the pool of threads
  const long long before = held;
  peak = before;
  call();
  std::printf("%s %d %lld %lld %lld\n", op, size, bytes, peak - before, held - before);
}

void measure_all(int n) {
  {
    const AdaptivePooling op = {20, 20 * n, 3, 5};
    Floats data(40 * 400 * n), out(40 * 15);
    measure("adaptive_avg_pooling", n, bytes_of(data, out),
            [&] { adaptive_avg_pooling(kCpu, out.data(), data.data(), 40, op); });
    measure("adaptive_avg_pooling_backward", n, bytes_of(data, out),
            [&] { adaptive_avg_pooling_backward(kCpu, data.data(), out.data(), 40, op); });
  }
  {
    const int num = 100 * n;
    Floats data(50 * num), columns(num), rows(50);
    for (size_t i = 0; i < data.size(); ++i) data[i] = (float)(i * 31 % 1009) / 1009;
    measure("bipartite_matching", n, bytes_of(data, columns, rows), [&] {
      bipartite_matching(kCpu, columns.data(), rows.data(), data.data(), {1, num, 50},
                         {0.1f, false, -1});
    });
  }
  {
    const int num = 1000 * n;
    Floats data(8 * num), anchors(4 * num), out(data.size());
    measure("box_decode", n, bytes_of(data, anchors, out), [&] {
      box_decode(kCpu, out.data(), data.data(), anchors.data(), 2, num, {1, 1, 1, 1, -1, false});
    });
    Floats samples(2 * num, 1.0f), matches(2 * num), refs(8), masks(out.size()), scale(4, 1.0f);
    const EncodeInputsOf<float> in = {samples.data(), matches.data(), data.data(),
                                      refs.data(),    scale.data(),   scale.data()};
    measure("box_encode", n, bytes_of(samples, matches, data, refs, out, masks),
            [&] { box_encode(kCpu, out.data(), masks.data(), in, 2, num, 1); });
  }
  {
    Floats lhs(4 * 100 * n), rhs(4 * 50), out(100 * n * 50);
    measure("box_iou", n, bytes_of(lhs, rhs, out),
            [&] { box_iou(kCpu, out.data(), lhs.data(), rhs.data(), 100 * n, 50, false); });
    measure("box_iou_backward", n, bytes_of(lhs, rhs, out, lhs, rhs), [&] {
      box_iou_backward(kCpu, lhs.data(), rhs.data(), out.data(), lhs.data(), rhs.data(), 100 * n,
                       50, false, IouKind::ciou);
    });
  }
  {
    Floats lhs(5 * 100 * n, 1.0f), rhs(5 * 50, 1.0f), out(100 * n * 50);
    measure("box_iou_rotated", n, bytes_of(lhs, rhs, out),
            [&] { box_iou_rotated(kCpu, out.data(), lhs.data(), rhs.data(), 100 * n, 50, {}); });
  }
  {
    Floats data(6 * 2000 * n), out(data.size());
    std::vector<int> index(2000 * n);
    spread(data, 6, 2);
    for (int i = 0; i < 2000 * n; ++i) data[6 * i + 1] = (float)(i * 31 % 1009) / 1009;
    const NmsOptions options = {{6, 1, 2, -1}, {0.5f, false, false, false}, 0, -1, 0, 2000 * n};
    measure("box_nms", n, bytes_of(data, out, index),
            [&] { box_nms(kCpu, out.data(), index.data(), data.data(), 1, 2000 * n, options); });
    measure("box_nms_backward", n, bytes_of(data, out, index),
            [&] { box_nms_backward(kCpu, out.data(), data.data(), index.data(), 1, 2000 * n, 6); });
    const int rows = 2000;
    measure("soft_nms", n, bytes_of(data, out, index), [&] {
      soft_nms(kCpu, out.data(), index.data(), data.data(), 1, 2000 * n,
               {options, {0.3f, 0.5f, false, false, false}, rows});
    });
    measure("weighted_boxes_fusion", n, bytes_of(data, out), [&] {
      weighted_boxes_fusion(kCpu, out.data(), data.data(), 1, 2000 * n,
                            {options, {0.9f, 2, false, false, false}, 2000 * n});
    });
    measure("matrix_nms", n, bytes_of(data, out, index), [&] {
      matrix_nms(kCpu, out.data(), index.data(), data.data(), 1, 2000 * n,
                 {options, {2, false, false, false}, 0, rows});
    });
  }
  {
    Floats out(4 * 100 * n * 3);
    const HalfSize half[] = {{0.1f, 0.1f}, {0.15f, 0.15f}, {0.2f, 0.1f}};
    const PriorMap map = {10, 10 * n, 3, 0.1f, 0.1f, 0.5f, 0.5f};
    measure("multibox_prior", n, bytes_of(out),
            [&] { multibox_prior(kCpu, out.data(), {&map, 1, half}, false); });
  }
  for (float ratio : {-1.0f, 3.0f}) {
    constexpr int kImages = 4, kNumGt = 64, kClasses = 3;
    const int num = 1000 * n;
    Floats anchor(4 * num), label(kImages * kNumGt * 5), cls_pred(kImages * kClasses * num);
    Floats loc(kImages * 4 * num), mask(loc.size()), cls(kImages * num);
    spread(anchor, 4, 0), spread(label, 5, 1);
    measure(ratio > 0 ? "multibox_target_mining" : "multibox_target", n,
            bytes_of(anchor, label, cls_pred, loc, mask, cls), [&] {
              multibox_target(kCpu, {loc.data(), mask.data(), cls.data()},
                              {anchor.data(), label.data(), cls_pred.data()},
                              {kImages, num, kNumGt, 5, kClasses},
                              {0.5f, -1, ratio, 0.5f, 0.1f, 0.1f, 0.2f, 0.2f});
            });
  }
  {
    constexpr int kBatch = 4, kClasses = 3;
    const int num = 1000 * n;
    Floats anchors(4 * num), prob(kBatch * kClasses * num), loc(kBatch * 4 * num);
    Floats out(kBatch * num * 6);
    spread(anchors, 4, 0);
    for (size_t i = 0; i < prob.size(); ++i) prob[i] = (float)(i * 31 % 1009) / 1009;
    measure("multibox_detection", n, bytes_of(anchors, prob, loc, out), [&] {
      multibox_detection(
          kCpu, out.data(), {prob.data(), loc.data(), anchors.data(), kBatch, kClasses, num},
          {true, 0.01f, {0.1f, 0.1f, 0.2f, 0.2f}, {0.5f, true, true, false}, true, num});
    });
  }
  {
    constexpr int kBatch = 2, kClasses = 20, kTopk = 1000;
    const int num = 1000 * n;
    Floats boxes(kBatch * 4 * num), scores(kBatch * kClasses * num), out(kBatch * 6 * kTopk);
    std::vector<int> counts(kBatch);
    spread(boxes, 4, 0);
    for (size_t i = 0; i < scores.size(); ++i) scores[i] = (float)(i * 31 % 1009) / 1009;
    measure("multiclass_nms", n, bytes_of(boxes, scores, out, counts), [&] {
      multiclass_nms(kCpu, out.data(), counts.data(),
                     {boxes.data(), scores.data(), kBatch, kClasses, num},
                     {{0.01f, 0, 0}, {0.5f, false, true, false}, kTopk, kTopk});
    });
  }
  {
    Floats data(7 * 2000 * n), out(data.size());
    std::vector<int> index(2000 * n);
    spread(data, 7, 2);
    for (int i = 0; i < 2000 * n; ++i) {
      float* row = &data[7 * i];
      row[1] = (float)(i * 31 % 1009) / 1009, row[4] = row[5] = 0.01f, row[6] = (float)i;
    }
    const NmsOptions options = {{7, 1, 2, -1}, {0.5f, false, false, false}, 0, -1, 0, 2000 * n};
    measure("nms_rotated", n, bytes_of(data, out, index), [&] {
      nms_rotated(kCpu, out.data(), index.data(), data.data(), 1, 2000 * n, options, {});
    });
  }
  {
    constexpr int kBatch = 2, kAnchors = 12;
    const int height = 10 * n, width = 30, cells = height * width;
    Floats prob(kBatch * 2 * kAnchors * cells), offsets(kBatch * 4 * kAnchors * cells);
    Floats info = {160.0f * n, 480, 1, 160.0f * n, 480, 1}, out(kBatch * 5 * 300);
    const float scales[] = {4, 8, 16, 32}, ratios[] = {0.5f, 1, 2};
    for (size_t i = 0; i < prob.size(); ++i) prob[i] = (float)(i * 31 % 1009) / 1009;
    measure("proposal", n, bytes_of(prob, offsets, out), [&] {
      proposal(kCpu, out.data(), nullptr,
               {prob.data(), offsets.data(), info.data(), kBatch, kAnchors, height, width},
               proposal_anchors(scales, 4, ratios, 3, 16), {16, 16, false, 6000, 300}, 0.7f);
    });
  }
  {
    const RoiPooling op = {1, 16, 20, 20 * n, 7, 7, 1};
    const int num = 50 * n;
    Floats data(16 * 400 * n), rois(5 * num), pooled(num * 16 * 49), grad(data.size());
    std::vector<int> argmax(pooled.size());
    for (int i = 0; i < num; ++i) rois[5 * i + 3] = 12, rois[5 * i + 4] = 15;
    measure("roi_pooling", n, bytes_of(data, rois, pooled, argmax), [&] {
      roi_pooling(kCpu, pooled.data(), argmax.data(), data.data(), rois.data(), num, op);
    });
    measure("roi_pooling_backward", n, bytes_of(pooled, argmax, grad), [&] {
      roi_pooling_backward(kCpu, grad.data(), pooled.data(), argmax.data(),
                           {num, 49, 1, 16, 400 * n});
    });
  }
  {
    const Psroi psroi = {1, 98, 20, 20 * n, 2, 7, 7, 1};
    const DeformablePsroi op = {psroi, 7, 2, 0.1f, 1};
    const int num = 50 * n;
    Floats data(98 * 400 * n), rois(5 * num), trans(98 * num), pooled(num * 2 * 49);
    Floats grad(data.size()), trans_grad(trans.size());
    for (int i = 0; i < num; ++i) rois[5 * i + 3] = 12, rois[5 * i + 4] = 15;
    measure("deformable_psroi_pooling", n, bytes_of(data, rois, trans, pooled), [&] {
      deformable_psroi_pooling(kCpu, pooled.data(), data.data(), rois.data(), trans.data(), num,
                               op);
    });
    measure("deformable_psroi_pooling_backward", n,
            bytes_of(data, rois, trans, pooled, grad, trans_grad), [&] {
              deformable_psroi_pooling_backward(kCpu, grad.data(), trans_grad.data(), pooled.data(),
                                                data.data(), rois.data(), trans.data(), num, op);
            });
  }
  {
    const RroiAlign op = {1, 16, 20, 20 * n, 7, 7, 1, 2};
    const int num = 50 * n;
    Floats data(16 * 400 * n), rois(6 * num), pooled(num * 16 * 49);
    for (int i = 0; i < num; ++i) rois[6 * i + 1] = 9, rois[6 * i + 3] = 12, rois[6 * i + 4] = 15;
    measure("rroi_align", n, bytes_of(data, rois, pooled),
            [&] { rroi_align(kCpu, pooled.data(), data.data(), rois.data(), num, op); });
  }
  {
    const Psroi op = {1, 98, 20, 20 * n, 2, 7, 7, 1};
    const int num = 50 * n;
    Floats data(98 * 400 * n), rois(5 * num), pooled(num * 2 * 49);
    for (int i = 0; i < num; ++i) rois[5 * i + 3] = 12, rois[5 * i + 4] = 15;
    measure("psroi_pooling", n, bytes_of(data, rois, pooled),
            [&] { psroi_pooling(kCpu, pooled.data(), data.data(), rois.data(), num, op); });
    measure("psroi_pooling_backward", n, bytes_of(data, rois, pooled), [&] {
      psroi_pooling_backward(kCpu, data.data(), pooled.data(), rois.data(), num, op);
    });
  }
  {
    const RoiAlign op = {1, 16, 20, 20 * n, 7, 7, 1, 2, false, false};
    const int num = 50 * n;
    Floats data(16 * 400 * n), rois(5 * num), pooled(num * 16 * 49);
    for (int i = 0; i < num; ++i) rois[5 * i + 3] = 12, rois[5 * i + 4] = 15;
    measure("roi_align", n, bytes_of(data, rois, pooled),
            [&] { roi_align(kCpu, pooled.data(), data.data(), rois.data(), num, op); });
    measure("roi_align_backward", n, bytes_of(data, rois, pooled),
            [&] { roi_align_backward(kCpu, data.data(), pooled.data(), rois.data(), num, op); });
  }
  {
    const BilinearResize op = {20, 10 * n, 30, 20 * n, true};
    Floats data(40 * 200 * n), out(40 * 600 * n);
    measure("bilinear_resize", n, bytes_of(data, out),
            [&] { bilinear_resize(kCpu, out.data(), data.data(), 40, op); });
    measure("bilinear_resize_backward", n, bytes_of(data, out),
            [&] { bilinear_resize_backward(kCpu, data.data(), out.data(), 40, op); });
  }
  {
    constexpr int kImages = 2, kTruths = 16;
    const int num = 1000 * n;
    Floats anchors(4 * num), labels(5 * kImages * kTruths), noise(kImages * num);
    Floats classes(noise.size()), boxes(4 * noise.size()), masks(boxes.size());
    spread(anchors, 4, 0), spread(labels, 5, 1);
    Floats truths(4 * kImages * kTruths);
    std::vector<int> matched(kImages * num);
    spread(truths, 4, 0);
    measure("match_anchors", n, bytes_of(anchors, truths, matched), [&] {
      match_anchors(kCpu, matched.data(), anchors.data(), truths.data(), {kImages, num, kTruths, 1},
                    {0.7f, 0.3f, true, true});
    });
    Floats all_noise(kImages * (num + kTruths)), proposals(4 * kImages * num);
    Floats rois(4 * kImages * 128), cls(kImages * 128), matches(cls.size());
    Floats offsets(rois.size()), mask(rois.size());
    spread(proposals, 4, 0);
    measure("rcnn_target", n,
            bytes_of(proposals, labels, all_noise, rois, cls, matches, offsets, mask), [&] {
              rcnn_target(
                  kCpu, {rois.data(), cls.data(), matches.data(), offsets.data(), mask.data()},
                  {proposals.data(), labels.data(), all_noise.data()}, {kImages, num, kTruths, 5},
                  {128, 32, 0.5f, 0, {{0, 0, 0, 0}, {1, 1, 1, 1}}});
            });
    measure("rpn_target", n, bytes_of(anchors, labels, noise, classes, boxes, masks), [&] {
      rpn_target(kCpu, {classes.data(), boxes.data(), masks.data()},
                 {anchors.data(), labels.data(), noise.data()}, {kImages, num, kTruths, 5},
                 {256, 128, 0.7f, 0.3f, {{0, 0, 0, 0}, {1, 1, 1, 1}}});
    });
  }
  {
    const int num = 10 * n;
    Floats rois(4 * num), masks(3 * 400 * n), matches(num), classes(num), out(num * 2 * 196);
    Floats weights(out.size());
    for (int i = 0; i < num; ++i) rois[4 * i + 2] = 12, rois[4 * i + 3] = 15;
    measure("mask_target", n, bytes_of(rois, masks, matches, classes, out, weights), [&] {
      mask_target(kCpu, out.data(), weights.data(),
                  {rois.data(), masks.data(), matches.data(), classes.data()},
                  {1, num, 3, 20, 20 * n}, {2, 14, 14, 2, false});
    });
    std::vector<unsigned char> pasted(num * 200 * 100);
    Floats scores(num * 28 * 28);
    for (float& x : rois) x *= 6;
    measure("paste_masks", n, bytes_of(scores, rois, pasted), [&] {
      paste_masks(kCpu, pasted.data(), scores.data(), rois.data(), {num, 28, 28, 200, 100}, 0.5f);
    });
  }
  {
    Floats data(5 * 20 * 10 * n), out(data.size() * 64);
    measure("bilinear_upsample", n, bytes_of(data, out),
            [&] { bilinear_upsample(kCpu, out.data(), data.data(), 5, 20, 10 * n, 8); });
    measure("bilinear_upsample_backward", n, bytes_of(data, out),
            [&] { bilinear_upsample_backward(kCpu, data.data(), out.data(), 5, 20, 10 * n, 8); });
  }
  {
    std::vector<int> prediction(100000 * n), label(prediction.size());
    std::vector<int64> matrix(21 * 21);
    measure("confusion_matrix", n, bytes_of(prediction, label, matrix), [&] {
      confusion_matrix(kCpu, matrix.data(), prediction.data(), label.data(), 100000 * n, 21, -1);
    });
  }
  {
    std::vector<unsigned char> colormap(3 * 21), image(3 * 100000 * n);
    std::vector<int> out(100000 * n);
    measure("label_from_color", n, bytes_of(colormap, image, out), [&] {
      label_from_color(kCpu, out.data(), image.data(), colormap.data(), 100000 * n, 21, 0);
    });
  }
}

}  // namespace

int main() {
  set_num_threads(2);
  set_result_pool_size(0);  // large scratch arrays would come from the pool
  for (int n : {1, 4, 16}) measure_all(n);
}
