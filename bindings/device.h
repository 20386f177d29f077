// Which GPU the launches work on.
#pragma once

namespace cvops::cuda {

// 0 where there is no GPU or no driver.
int device_count();

// Makes `device` current for this thread; the one that was.
int set_device(int device);

// Waits for the default stream.
void synchronize();

}  // namespace cvops::cuda
