// A file system for RocksDB, on top of another one, that tells what a cut of power has torn from
// what has rotted, in the two kinds of log that opening a database reads.
//
// MANIFEST-N has a record for every change of RocksDB's set of files, each synced. RocksDB takes a
// record that is cut short for the end, but one that has its length and the wrong bytes for damage:
// and that is what is left when the power goes during the sync of a record longer than a sector.
// The database would never open again, though the change was not in force yet and nothing is
// missing. The file alone does not tell such a record from one that was synced and has rotted
// since, and to drop the latter is to lose data: the log that a flush has made superfluous is gone.
// So beside each manifest there is a file MANIFEST-N.synced, with a mark for each sync: how long
// the manifest was. It is written and synced itself before the manifest's sync returns. A record
// past the last mark therefore belongs to a change whose sync has not returned, on which nothing
// was built: no file that it replaces was deleted, nobody was told.
//
// A manifest that is opened for reading
//  - ends before the first damaged record if that is past the last mark;
//  - is refused (Corruption) if what the marks vouch for is not all there and sound;
//  - is left alone if a record is merely cut short by the end of the file, which is what a reader
//    of a database in use meets: RocksDB sees the rest when it reads on;
//  - is left alone without marks, as a database that was last opened without this file system.
// RocksDB never appends to a manifest that it has read: it begins a new one.
//
// N.log has a record for every batch. RocksDB ends it before the first damaged one, which is right
// for a torn one, and drops all that follow. But a store syncs each batch before it writes the
// next, so a sound batch after a damaged one says that the latter was synced: such a log is refused
// (Corruption). A new log is begun only when all of the one before is synced: so a log that does
// not end with a whole batch is refused too if one with a higher number has a batch. Only of the
// very last batch of all it cannot be said, as marks would cost each commit a second sync.
#pragma once

#include <memory>

namespace rocksdb {
class FileSystem;
}

namespace mapperfs {

// Any thread. Owns a share of `base`. For databases all of whose batches are written with sync.
std::shared_ptr<rocksdb::FileSystem> make_guarded_logs_fs(
    std::shared_ptr<rocksdb::FileSystem> base);

}  // namespace mapperfs
