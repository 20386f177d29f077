#pragma once
#include "nms/rule.cuh"
#include "ops.h"

template <>
struct pybind11::detail::type_caster<cvops::NmsRule>
    : cvops::FromTuple<cvops::NmsRule, float, bool, bool, bool> {};
