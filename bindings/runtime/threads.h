// Threads of the CPU ops: one small pool per process, shared by all callers.
#pragma once

namespace cvops {

// Maximum number of threads of an op: the value of set_num_threads, else CVOPS_NUM_THREADS or
// OMP_NUM_THREADS, else the number of cores of this process. After a fork, as in a DataLoader
// worker, it is 1 until it is set there.
int num_threads();

// `threads` >= 1; 0 restores the default.
void set_num_threads(int threads);

// Calls work(context) on this thread and, at the same time, on up to threads - 1 others. If the
// pool is in use, by another caller or an outer call, this thread works alone. A process therefore
// never has more threads than were requested. `work` must not throw.
void run_on_threads(int threads, void (*work)(void* context), void* context);

}  // namespace cvops
