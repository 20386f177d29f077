#include "multibox_target.h"

#include <algorithm>
#include <atomic>
#include <iomanip>
#include <locale>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "mining.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"
#include "target.h"
#include "target_assignment.h"
#include "workspace.h"

namespace cvops {

using namespace cpu;

namespace {

// Anchors per work item of the output.
constexpr int kTile = 1024;
// From this number of bytes on, outputs leave the caches before anyone reads them.
constexpr int64 kStreamed = 16 << 20;

struct Memory {
  std::unique_ptr<char[]> bytes;

  // Allocates one piece of memory for all arrays that `parts` takes from a workspace.
  template <typename Parts>
  explicit Memory(Parts& parts) {
    Workspace size;
    parts.take(size);
    bytes.reset(new char[size.size()]);
    Workspace memory(bytes.get());
    parts.take(memory);
  }
};

// Offsets (num, 4) of truths relative to anchors, both given as arrays of fields.
void encode_fields(float* out, const float (&anchor)[4][kBlock], const float (&truth)[4][kBlock],
                   int num, const TargetOptions& options) {
  const int lanes = whole_vectors(num);
  float x[kBlock], y[kBlock], width[kBlock], height[kBlock];
  for (int i = 0; i < lanes; ++i) {
    const Offsets offsets = encode({anchor[0][i], anchor[1][i], anchor[2][i], anchor[3][i]},
                                   {truth[0][i], truth[1][i], truth[2][i], truth[3][i]}, options);
    x[i] = offsets.x, y[i] = offsets.y, width[i] = offsets.width, height[i] = offsets.height;
  }
  for (int i = 0; i < num; ++i) {
    out[4 * i] = x[i], out[4 * i + 1] = y[i], out[4 * i + 2] = width[i], out[4 * i + 3] = height[i];
  }
}

// Writes `end - first` rows of 4: the rows at `places` from `rows`, the other rows 0. With
// `streams` it uses non-temporal stores: a normal store would first read the memory that it
// replaces.
void write_rows(float* out, int first, int end, const int* places, const float* rows, int num,
                bool streams) {
  if (streams) {
    const float zeros[4] = {};
    for (int i = 0, row = first; row < end; ++row) {
      for (const int until = i < num ? places[i] : end; row < until; ++row) {
        stream_four(out + 4 * (int64)row, zeros);
      }
      if (i < num) stream_four(out + 4 * (int64)row, rows + 4 * i++);
    }
    return;
  }
  std::fill(out + 4 * (int64)first, out + 4 * (int64)end, 0.0f);
  for (int i = 0; i < num; ++i) std::copy_n(rows + 4 * i, 4, out + 4 * (int64)places[i]);
}

// Writes the targets of images.
class Writer {
 public:
  Writer(TargetOutputs out, const Anchors& anchors, TargetShape shape, TargetOptions options)
      : out_(out), anchors_(anchors), label_width_(shape.label_width), options_(options) {
    const int64 bytes = 9 * (int64)sizeof(float) * shape.num_images * anchors.num;
    const auto places = (std::uintptr_t)out.loc_target | (std::uintptr_t)out.loc_mask;
    streams_ = bytes >= kStreamed && places % 16 == 0;
  }

  // Writes the anchors [first, end) of an image. `others` is the class of anchors without a match.
  void write(int image, int first, int end, const Matches& matches, const float* label,
             const SizedBox* truths, float others) const {
    int places[kTile], num = 0;
    float rows[4 * kTile];
    const int64 begin = (int64)image * anchors_.num;
    float* cls = out_.cls_target + begin;
    std::fill(cls + first, cls + end, others);
    matches.for_each(first, end, [&](int a) {
      if (matches.is_positive(a, options_)) {
        places[num++] = a;
        cls[a] = label[(int64)matches.truth_of(a) * label_width_] + 1;
      } else if (options_.mining_ratio > 0 && !matches.is_candidate(a, options_)) {
        cls[a] = options_.ignore_label;
      }
    });
    encode_rows(rows, places, num, matches, truths);
    write_rows(out_.loc_target + 4 * begin, first, end, places, rows, num, streams_);
    std::fill_n(rows, 4 * num, 1.0f);
    write_rows(out_.loc_mask + 4 * begin, first, end, places, rows, num, streams_);
    if (streams_) streamed();
  }

  // Sets the class of some anchors of an image to 0.
  void write_negatives(int image, const int* anchors, int num) const {
    float* cls = out_.cls_target + (int64)image * anchors_.num;
    for (int i = 0; i < num; ++i) cls[anchors[i]] = 0;
  }

 private:
  void encode_rows(float* rows, const int* places, int num, const Matches& matches,
                   const SizedBox* truths) const {
    float anchor[4][kBlock] = {}, truth[4][kBlock] = {};
    for (int first = 0; first < num; first += kBlock) {
      const int some = std::min(kBlock, num - first);
      for (int i = 0; i < some; ++i) {
        const int a = places[first + i];
        const Box own = anchors_.at(a).box, box = truths[matches.truth_of(a)].box;
        anchor[0][i] = own.x1, anchor[1][i] = own.y1, anchor[2][i] = own.x2, anchor[3][i] = own.y2;
        truth[0][i] = box.x1, truth[1][i] = box.y1, truth[2][i] = box.x2, truth[3][i] = box.y2;
      }
      simd<encode_fields>(rows + 4 * first, anchor, truth, some, options_);
    }
  }

  const TargetOutputs out_;
  const Anchors& anchors_;
  const int label_width_;
  const TargetOptions options_;
  bool streams_;
};

// Targets of one image after another. Steps and names are those of the kernels.
class Image {
 public:
  // With `parallel`, several threads share the anchors.
  Image(const Anchors& anchors, TargetInputs in, TargetShape shape, TargetOptions options,
        TargetOutputs out, bool parallel)
      : in_(in),
        shape_(shape),
        options_(options),
        parallel_(parallel),
        bipartite_(anchors, shape.num_truths, parallel),
        mining_(shape, options, parallel),
        writer_(out, anchors, shape, options),
        memory_(*this) {}

  void take(Workspace& memory) {
    matches_.take(memory, shape_.num_anchors);
    truths_ = memory.take<SizedBox>(shape_.num_truths);
    bipartite_.take(memory);
    if (options_.mining_ratio > 0) mining_.take(memory);
  }

  void run(int image) {
    const int num = shape_.num_anchors;
    const float* label = in_.label + (int64)image * shape_.num_truths * shape_.label_width;
    const int num_truths = load_truths(label);
    matches_.clear(num);
    Negatives negatives = {nullptr, 0, false};
    if (num_truths) {
      bipartite_.match(matches_, truths_, num_truths, min_relevant_iou(options_));
      bipartite_.assign(matches_, truths_, num_truths);
      negatives.are_all = true;
      if (options_.mining_ratio > 0) {
        const float* logits = in_.cls_pred + (int64)image * shape_.num_classes * num;
        negatives = mining_.mine(logits, matches_);
      }
    }
    const float others = negatives.are_all ? 0 : options_.ignore_label;
    parallel_for(ceil_div(num, kTile), parallel_ ? 0.6 * kTile : 0, [&](int64 tile) {
      const int first = (int)tile * kTile, end = std::min(num, first + kTile);
      writer_.write(image, first, end, matches_, label, truths_, others);
    });
    writer_.write_negatives(image, negatives.anchors, negatives.num);
  }

 private:
  // Loads the rows before the first one of class -1, and returns their number.
  int load_truths(const float* label) {
    int num = 0;
    for (; num < shape_.num_truths && label[(int64)num * shape_.label_width] != -1; ++num) {
      truths_[num] = truth_at(label, num, shape_.label_width);
    }
    return num;
  }

  const TargetInputs in_;
  const TargetShape shape_;
  const TargetOptions options_;
  const bool parallel_;
  Matches matches_;
  SizedBox* truths_;
  Bipartite bipartite_;
  Mining mining_;
  const Writer writer_;
  const Memory memory_;
};

// Rejects a row of label (images, rows, width) whose class is -1, which ends the truths of an
// image, but whose corners are not.
void refuse_half_padding(const float* label, int64 images, int64 rows, int64 width) {
  for (int64 image = 0; image < images; ++image) {
    for (int64 i = 0; i < rows; ++i) {
      const float* row = label + (image * rows + i) * width;
      if (row[0] != -1) continue;
      if (row[1] == -1 && row[2] == -1 && row[3] == -1 && row[4] == -1) break;
      std::ostringstream message;
      message.imbue(std::locale::classic());
      message << std::setprecision(9)
              << "label: expected corners of -1 where the class is -1, got [" << row[1] << ", "
              << row[2] << ", " << row[3] << ", " << row[4] << "] in image " << image << ", row "
              << i;
      throw std::invalid_argument(message.str());
    }
  }
}

}  // namespace

void multibox_target(const Cpu&, TargetOutputs out, TargetInputs in, TargetShape shape,
                     TargetOptions options) {
  if (shape.num_images == 0) return;
  refuse_half_padding(in.label, shape.num_images, shape.num_truths, shape.label_width);
  Anchors anchors(shape.num_anchors);
  const Memory memory(anchors);
  anchors.fill(in.anchor);
  // Threads share the images, or the anchors of each image if there are fewer images than threads.
  const int threads = num_threads(), images = shape.num_images;
  if (images < threads) {
    Image image(anchors, in, shape, options, out, true);
    for (int i = 0; i < images; ++i) image.run(i);
    return;
  }
  const double logits = options.mining_ratio > 0 ? 0.25 * shape.num_classes : 0;
  const double cost = shape.num_anchors * (0.1 * shape.num_truths + logits + 0.6);
  std::atomic<int> next{0};
  parallel_for(threads, cost * images / threads, [&](int64) {
    int i = next++;
    if (i >= images) return;
    Image image(anchors, in, shape, options, out, false);
    for (; i < images; i = next++) image.run(i);
  });
}

}  // namespace cvops
