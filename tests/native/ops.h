// The ops of the CPU, and shorthands for programs that call them.
#pragma once

#include <vector>

#include "adaptive_avg_pooling.h"
#include "bilinear_resize.h"
#include "bilinear_upsample.h"
#include "bipartite_matching.h"
#include "box_decode.h"
#include "box_encode.h"
#include "box_iou.h"
#include "box_iou_rotated.h"
#include "box_nms.h"
#include "confusion_matrix.h"
#include "deformable_psroi_pooling.h"
#include "label_from_color.h"
#include "mask_target.h"
#include "match_anchors.h"
#include "matrix_nms.h"
#include "multibox_detection.h"
#include "multibox_prior.h"
#include "multibox_target.h"
#include "multiclass_nms.h"
#include "nms_rotated.h"
#include "paste_masks.h"
#include "proposal.h"
#include "psroi_pooling.h"
#include "rcnn_target.h"
#include "roi_align.h"
#include "roi_pooling.h"
#include "rpn_target.h"
#include "rroi_align.h"
#include "soft_nms.h"
#include "threads.h"
#include "weighted_boxes_fusion.h"

constexpr cvops::Cpu kCpu;
using Floats = std::vector<float>;
