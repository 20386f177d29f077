// MXNet's half of the ABI boundary (lib_api.cc), except for its error messages. MXNet appends each
// message of the library to all later errors, and its threads write them without a lock. Here each
// thread keeps its last message; MXNet reads it in the thread in which the operator failed.
#include <mxnet/lib_api.h>

#include "error.h"

#define _msgSize msg_size_of_mxnet
#define _msgGet msg_get_of_mxnet
#include <src/lib_api.cc>
#undef _msgSize
#undef _msgGet

static thread_local std::string message;

void cvops::external::set_error(const std::string& text) { message = text; }

MX_INT_RET _msgSize() { return message.empty() ? 0 : 1; }
MX_VOID_RET _msgGet(int, const char** text) { *text = message.c_str(); }
