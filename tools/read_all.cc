#include "tools/read_all.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "engine/unique_fd.h"

namespace mapperfs {

ReadText read_descriptor(int fd) {
  ReadText all;
  std::array<char, 65536> piece;
  for (;;) {
    const ssize_t bytes = ::read(fd, piece.data(), piece.size());
    if (bytes > 0) {
      all.text.append(piece.data(), static_cast<std::size_t>(bytes));
    } else if (bytes == 0) {
      return all;
    } else if (errno != EINTR) {
      all.error = errno;
      return all;
    }
  }
}

ReadText read_path(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    return {{}, errno, false};
  }
  return read_descriptor(fd.get());
}

}  // namespace mapperfs
