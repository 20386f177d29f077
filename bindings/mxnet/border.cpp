// MXNet's half of the border, but for its messages: it appends every message that the library has
// ever given to each error, and threads write them at once. Here each thread keeps its last one;
// MXNet asks for it in the thread in which an operator has failed.
#include "operator.h"

#define _msgSize msg_size_of_mxnet
#define _msgGet msg_get_of_mxnet
#include <src/lib_api.cc>
#undef _msgSize
#undef _msgGet

static thread_local std::string message;

void cvops::external::tell(const std::string& text) { message = text; }

MX_INT_RET _msgSize() { return message.empty() ? 0 : 1; }
MX_VOID_RET _msgGet(int, const char** text) { *text = message.c_str(); }
