// The threads of the CPU ops: one small pool for the process, shared by all that calls the ops.
#pragma once

namespace cvops {

// How many threads an op may use: what set_num_threads said; else CVOPS_NUM_THREADS or
// OMP_NUM_THREADS; else the cores that this process may use. In a process that fork made, such as a
// DataLoader's worker, 1 until it is set there.
int num_threads();

// From 1 on; 0 forgets what was set.
void set_num_threads(int threads);

// Calls work(context) on this thread and, while it is busy, on up to threads - 1 others. Where the
// pool already works, for another caller or for one further out, this thread works alone: the
// threads of a process never outnumber what was asked for. `work` throws nothing.
void run_on_threads(int threads, void (*work)(void* context), void* context);

}  // namespace cvops
