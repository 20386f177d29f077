#pragma once
#include "nms_rows.cuh"
#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::NmsColumns>
    : cvops::FromTuple<cvops::NmsColumns, int, int, int, int> {};
