# Finds libfuse and defines the target mapperfs_libfuse, which fs/ alone links with.
#
#   MAPPERFS_LIBFUSE = auto     the private build of tools/build-libfuse if it is there, else the
#                               system's libfuse3, 3.14 or newer
#                      private  the private build or an error
#                      system   the system's or an error
#   MAPPERFS_DEPS    = the folder that holds the private build, libfuse3/ (cache or environment;
#                      by default .deps/ in the tree)
#
# The target brings the include folder (as a system one: our warnings are not for libfuse), the
# library, FUSE_USE_VERSION and, for every ability that the headers or the library have or lack, a
# macro that is always defined, to 0 or 1:
#   MAPPERFS_HAVE_FUSE_PASSTHROUGH             fuse_passthrough_open()
#   MAPPERFS_HAVE_FUSE_PARALLEL_DIRECT_WRITES  the flag in struct fuse_file_info
# What the running kernel allows is another question, asked at mount time; so is whether libfuse was
# built with custom io, without which it serves through one descriptor of /dev/fuse alone. FUSE over
# io_uring needs that and nothing else of libfuse: the rings are our own (fs/ring.h).
include_guard(GLOBAL)
find_package(PkgConfig REQUIRED)

set(MAPPERFS_LIBFUSE auto CACHE STRING "which libfuse: auto, private or system")
set_property(CACHE MAPPERFS_LIBFUSE PROPERTY STRINGS auto private system)
if(DEFINED ENV{MAPPERFS_DEPS})
  set(mapperfs_deps_default "$ENV{MAPPERFS_DEPS}")
else()
  set(mapperfs_deps_default "${PROJECT_SOURCE_DIR}/.deps")
endif()
set(MAPPERFS_DEPS "${mapperfs_deps_default}" CACHE PATH "folder of the private libraries")

if(NOT MAPPERFS_LIBFUSE MATCHES "^(auto|private|system)$")
  message(FATAL_ERROR "MAPPERFS_LIBFUSE is '${MAPPERFS_LIBFUSE}': auto, private or system")
endif()

# Looks for the private build, by its own pkg-config folder and no other. The cache is told to
# forget an earlier failure or version: the prefix may have come or been renewed since.
if(NOT MAPPERFS_LIBFUSE STREQUAL "system")
  unset(MAPPERFS_FUSE_PRIVATE_FOUND CACHE)
  unset(pkgcfg_lib_MAPPERFS_FUSE_PRIVATE_fuse3 CACHE)
  if(EXISTS "${MAPPERFS_DEPS}/libfuse3/lib/pkgconfig/fuse3.pc")
    set(mapperfs_saved_path "$ENV{PKG_CONFIG_PATH}")
    set(ENV{PKG_CONFIG_PATH} "${MAPPERFS_DEPS}/libfuse3/lib/pkgconfig:${mapperfs_saved_path}")
    pkg_check_modules(MAPPERFS_FUSE_PRIVATE QUIET IMPORTED_TARGET GLOBAL "fuse3>=3.18")
    set(ENV{PKG_CONFIG_PATH} "${mapperfs_saved_path}")
  endif()
  if(MAPPERFS_FUSE_PRIVATE_FOUND)
    set(mapperfs_fuse MAPPERFS_FUSE_PRIVATE)
  elseif(MAPPERFS_LIBFUSE STREQUAL "private")
    message(FATAL_ERROR "no libfuse in ${MAPPERFS_DEPS}/libfuse3: run tools/build-libfuse, which "
      "needs liburing-dev and libnuma-dev, or take -DMAPPERFS_LIBFUSE=system")
  endif()
endif()
if(NOT mapperfs_fuse)
  pkg_check_modules(MAPPERFS_FUSE_SYSTEM QUIET IMPORTED_TARGET GLOBAL "fuse3>=3.14")
  if(NOT MAPPERFS_FUSE_SYSTEM_FOUND)
    message(FATAL_ERROR "libfuse3 3.14 or newer is needed: run tools/install-deps --build")
  endif()
  set(mapperfs_fuse MAPPERFS_FUSE_SYSTEM)
endif()
set(mapperfs_fuse_version "${${mapperfs_fuse}_VERSION}")

# mapperfs_fuse_header_has(VARIABLE HEADER WORD): VARIABLE is 1 if HEADER has WORD, else 0. A look
# at the text, not a test program: it needs no cache, so another libfuse gets another answer.
function(mapperfs_fuse_header_has variable header word)
  set(${variable} 0 PARENT_SCOPE)
  foreach(dir ${${mapperfs_fuse}_INCLUDE_DIRS} /usr/include/fuse3)
    if(EXISTS "${dir}/${header}")
      file(STRINGS "${dir}/${header}" hits REGEX "(^|[^A-Za-z0-9_])${word}([^A-Za-z0-9_]|$)")
      if(hits)
        set(${variable} 1 PARENT_SCOPE)
      endif()
      return()
    endif()
  endforeach()
endfunction()

mapperfs_fuse_header_has(mapperfs_have_passthrough fuse_lowlevel.h fuse_passthrough_open)
mapperfs_fuse_header_has(mapperfs_have_parallel fuse_common.h parallel_direct_writes)

# The interface version asked for: the newest that this code was written against.
if(mapperfs_fuse_version VERSION_GREATER_EQUAL 3.17)
  set(mapperfs_fuse_use_version 317)
else()
  set(mapperfs_fuse_use_version 314)
endif()

add_library(mapperfs_libfuse INTERFACE)
target_link_libraries(mapperfs_libfuse INTERFACE PkgConfig::${mapperfs_fuse})
target_include_directories(mapperfs_libfuse SYSTEM INTERFACE ${${mapperfs_fuse}_INCLUDE_DIRS})
target_compile_definitions(mapperfs_libfuse INTERFACE
  FUSE_USE_VERSION=${mapperfs_fuse_use_version}
  MAPPERFS_HAVE_FUSE_PASSTHROUGH=${mapperfs_have_passthrough}
  MAPPERFS_HAVE_FUSE_PARALLEL_DIRECT_WRITES=${mapperfs_have_parallel})

set(mapperfs_transports "io_uring, /dev/fuse")
if(mapperfs_have_passthrough)
  string(PREPEND mapperfs_transports "passthrough, ")
else()
  string(APPEND mapperfs_transports " (no passthrough: tools/build-libfuse brings it)")
endif()
if(mapperfs_fuse STREQUAL "MAPPERFS_FUSE_PRIVATE")
  set(mapperfs_which "private")
else()
  set(mapperfs_which "system's")
endif()
message(STATUS "libfuse ${mapperfs_fuse_version}, ${mapperfs_which}; transports: "
  "${mapperfs_transports}")
