// The end of a FUSE connection that nobody answers any more.
#pragma once

#include <string>

namespace mapperfs {

// Cuts the connection of the mount: every request fails, those under way (ECONNABORTED) and those
// that come (ENOTCONN), and no answer goes anywhere. I/O of ours that came back to this mount, as
// through a loop device on a device of it, ends so, which no signal does. By the kernel's forced
// unmount, which is root's; or by fusectl, where it is mounted; and in any case by giving the
// descriptors of /dev/fuse up, all that this process has: the last of them takes the connection
// along. True where nothing is mounted there any more; else it is still to be unmounted.
//
// Never touches the mount. Any thread, once nothing waits for requests any more.
bool sever_connection(const std::string& mount_point);

}  // namespace mapperfs
