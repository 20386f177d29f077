#include "nms_marks.h"

#include <algorithm>
#include <numeric>

namespace cvops::cpu {
namespace {

// Maximum number of steps per decided box. The first boxes may need more.
constexpr int64 kMaxWork = 160, kFree = 64;

// Calls body(slot) for the steps that contain the boxes near the box of a slot. `near` is its
// window.
template <typename Body>
CVOPS_INLINE void for_each_near(const BoxesInCells& boxes, int slot, const Window& near,
                                const Body& body) {
  if (boxes.cells == 1) return for_each_step(slot, boxes.slots(), body);
  const int* row = boxes.begins + near.row * boxes.grid.columns;
  for (int r = near.row; r < near.end_row; ++r, row += boxes.grid.columns) {
    for_each_step(row[near.column], row[near.end_column], body);
  }
}

// Removes the boxes with a mark.
CVOPS_INLINE void remove_marked(BoxesInCells& boxes, int* marks) {
  int from = 0, to = 0;
  for (int c = 0; c < boxes.cells; ++c) {
    for (const int end = boxes.begins[c + 1]; from < end; ++from) {
      const int is_marked = marks[from], box = boxes.box_at[from];
      boxes.places.put(to, boxes.places.at(from));
      marks[to] = 0;
      boxes.box_at[to] = box;
      boxes.slot_of[box] = is_marked ? boxes.removed_slot : to;
      to += !is_marked;
    }
    boxes.begins[c + 1] = to;
  }
  boxes.clear_last_step();
}

// `marks` has 1 for the slots of decided or suppressed boxes, else 0.
template <Form kForm>
int decide(BoxesInCells& boxes, int* marks, uint8_t* is_kept, int max_kept) {
  // Where most boxes are kept, their windows are computed ahead: the branches on them are hard to
  // predict, and then need not wait for that.
  constexpr int kAhead = 64;
  Window windows[kAhead] = {};
  const Grid grid = boxes.grid;
  auto window = [&](const SizedBox& b) {
    return grid.in_reach(boxes.place(b), boxes.broad_phase.side_fraction);
  };
  bool ahead = false;
  int first = 0, num_kept = 0;  // first box since the removal of boxes
  int64 all_work = 0, work_before = 0, next_check = boxes.num;
  for (int i = 0; i < boxes.num; ++i) {
    Window& near = windows[i % kAhead];
    if (i % kAhead == 0 && boxes.cells > 1) {
      ahead = 2 * num_kept >= i;
      for (int j = i; ahead && j < std::min(boxes.num, i + kAhead); ++j) {
        windows[j - i] = window(boxes.boxes[boxes.order[j]]);
      }
    }
    const int index = boxes.order[i];
    const int slot = boxes.slot_of[i];
    const bool own = (num_kept < max_kept) & (marks[slot] == 0);
    is_kept[index] = own;
    num_kept += own;
    if (!own || slot == boxes.free_slot) continue;
    const SizedBox b = boxes.boxes[index];
    if (!ahead && boxes.cells > 1) near = window(b);
    int unsure[kStep] = {};
    for_each_near(boxes, slot, near, [&](int at) __attribute__((always_inline)) {
      CVOPS_VECTORIZED
      for (int k = 0; k < kStep; ++k) {
        const Verdict verdict = compare<kForm>(b, boxes.places.at(at + k), boxes.bounds);
        marks[at + k] |= verdict.surely;
        unsure[k] |= verdict.unsure;
      }
      ++all_work;
    });
    if (any(unsure)) {
      for_each_near(boxes, slot, near, [&](int at) __attribute__((always_inline)) {
        CVOPS_VECTORIZED
        for (int k = 0; k < kStep; ++k) {
          marks[at + k] |= suppresses_by_rule<kForm>(b, boxes.places.at(at + k), boxes.rule);
        }
      });
    }
    const int64 work = all_work - work_before;
    const bool is_slow = work > kMaxWork * (i - first + kFree);
    if (!is_slow && work < next_check) continue;
    next_check = work + boxes.slots();
    // A guess of the work that is left.
    const double left = (double)work / (i - first + 1) * (boxes.num - i);
    const bool pays = is_slow || left > 5 * boxes.slots();
    if (pays && 2 * std::accumulate(marks, marks + boxes.slots(), 0) > boxes.slots()) {
      remove_marked(boxes, marks);
      first = i, work_before = all_work, next_check = boxes.slots();
    } else if (is_slow) {
      return i + 1;
    }
  }
  return boxes.num;
}

}  // namespace

template <Form kForm>
int suppress_by_marks(BoxesInCells& boxes, uint8_t* is_kept, int max_kept) {
  const auto marks = pooled_scratch<int>(boxes.places.capacity);
  std::fill_n(marks.get(), boxes.places.capacity, 0);
  marks[boxes.removed_slot] = 1;
  return simd<decide<kForm>>(boxes, marks.get(), is_kept, max_kept);
}

template int suppress_by_marks<Form::corner>(BoxesInCells&, uint8_t*, int);
template int suppress_by_marks<Form::center>(BoxesInCells&, uint8_t*, int);
template int suppress_by_marks<Form::pixels>(BoxesInCells&, uint8_t*, int);

}  // namespace cvops::cpu
