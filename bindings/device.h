// Which GPU the launches work on, and its memory.
#pragma once
#include "common.cuh"

struct CUstream_st;

namespace cvops::cuda {

// 0 where there is no GPU or no driver.
int device_count();

// Makes `device` current for this thread; the one that was.
int set_device(int device);

// Waits for the default stream.
void synchronize();

void set_to_zero(void* memory, int64 bytes, CUstream_st* stream);
void copy(void* to, const void* from, int64 bytes, CUstream_st* stream);

}  // namespace cvops::cuda
