#pragma once
#include "ops.h"
#include "rotated_box.cuh"

template <>
struct pybind11::detail::type_caster<cvops::RotatedFormat>
    : cvops::FromTuple<cvops::RotatedFormat, bool, bool> {};
