#pragma once
#include "arrays.h"
#include "nms_rule.cuh"

template <>
struct pybind11::detail::type_caster<cvops::NmsRule>
    : cvops::FromTuple<cvops::NmsRule, float, bool, bool, bool> {};
