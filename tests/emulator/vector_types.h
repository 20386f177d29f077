// CUDA's vector types, with the alignment of CUDA.
#pragma once

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define EMULATOR_VECTOR2(T, name)      \
  struct alignas(2 * sizeof(T)) name { \
    T x, y;                            \
  };                                   \
  inline name make_##name(T x, T y) { return {x, y}; }

#define EMULATOR_VECTOR3(T, name) \
  struct name {                   \
    T x, y, z;                    \
  };                              \
  inline name make_##name(T x, T y, T z) { return {x, y, z}; }

#define EMULATOR_VECTOR4(T, name)      \
  struct alignas(4 * sizeof(T)) name { \
    T x, y, z, w;                      \
  };                                   \
  inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }

EMULATOR_VECTOR2(int, int2)
EMULATOR_VECTOR2(unsigned, uint2)
EMULATOR_VECTOR2(float, float2)
EMULATOR_VECTOR2(double, double2)
EMULATOR_VECTOR2(long long, longlong2)
EMULATOR_VECTOR2(unsigned long long, ulonglong2)
EMULATOR_VECTOR3(int, int3)
EMULATOR_VECTOR3(unsigned, uint3)
EMULATOR_VECTOR3(float, float3)
EMULATOR_VECTOR4(unsigned char, uchar4)
EMULATOR_VECTOR4(int, int4)
EMULATOR_VECTOR4(unsigned, uint4)
EMULATOR_VECTOR4(float, float4)

#undef EMULATOR_VECTOR2
#undef EMULATOR_VECTOR3
#undef EMULATOR_VECTOR4
