// Type casters of the shape and the options of rpn_target and rcnn_target.
#pragma once
#include "ops.h"
#include "sampling.cuh"

template <>
struct pybind11::detail::type_caster<cvops::SampleShape>
    : cvops::FromTuple<cvops::SampleShape, int, int, int, int> {};

template <>
struct pybind11::detail::type_caster<cvops::SampleOptions>
    : cvops::FromTuple<cvops::SampleOptions, int, int, float, float, float, float, float, float,
                       float, float, float, float> {};
