// The handler of -fsanitize=alignment: an access to a misaligned address fails, as on a GPU. This
// function replaces the handler of the compiler's runtime library.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "block.h"

namespace {

// The data of a check, in the format of GCC and Clang.
struct Location {
  const char* file;
  std::uint32_t line, column;
};
struct Type {
  std::uint16_t kind, info;
  char name[1];  // in quotation marks
};
struct Check {
  Location location;
  const Type& type;
  unsigned char log_alignment, kind;
};

}  // namespace

extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(const Check* check,
                                                                   std::uintptr_t address) {
  char text[20];
  std::snprintf(text, sizeof text, "%#llx", static_cast<unsigned long long>(address));
  const std::string message = std::string(check->location.file) + ":" +
                              std::to_string(check->location.line) + ": misaligned address " +
                              text + " for type " + check->type.name + ", which requires " +
                              std::to_string(1 << check->log_alignment) + " byte alignment";
  if (emulator::current_block) emulator::current_block->fail(message);
  std::fprintf(stderr, "%s\n", message.c_str());
  std::abort();
}
