// The layout of these texts (tabs, blanks, line ends) is what `dmsetup help` of 1.02.205 prints:
// scripts look for an option in it before they use it.
#include "tools/mapperctl_help.h"

#include <fmt/ostream.h>

#include <algorithm>
#include <array>

namespace mapperctl {
namespace {

constexpr std::array kUsages = {
    Usage{"help", "[-c|-C|--columns]", 0, 0},
    Usage{"create",
          "<dev_name>\n"
          "\t    [-j|--major <major> -m|--minor <minor>]\n"
          "\t    [-U|--uid <uid>] [-G|--gid <gid>] [-M|--mode <octal_mode>]\n"
          "\t    [-u|--uuid <uuid>] [--addnodeonresume|--addnodeoncreate]\n"
          "\t    [--readahead {[+]<sectors>|auto|none}]\n"
          "\t    [-n|--notable|--table {<table>|<table_file>}]\n"
          "\tcreate --concise [<concise_device_spec_list>]",
          0, 2},
    Usage{"remove", "[--deferred] [-f|--force] [--retry] <device>...", 0, -1, true},
    Usage{"remove_all", "[-f|--force]", 0, 0},
    Usage{"suspend", "[--noflush] [--nolockfs] <device>...", 0, -1, true},
    Usage{"resume",
          "[--noflush] [--nolockfs] <device>...\n"
          "\t       [--addnodeonresume|--addnodeoncreate]\n"
          "\t       [--readahead {[+]<sectors>|auto|none}]",
          0, -1, true},
    Usage{"load", "<device> [<table>|<table_file>]", 0, 2},
    Usage{"clear", "<device>", 0, -1, true},
    Usage{"reload", "<device> [<table>|<table_file>]", 0, 2},
    Usage{"wipe_table", "[-f|--force] [--noflush] [--nolockfs] <device>...", 0, -1, true},
    Usage{"rename", "<device> [--setuuid] <new_name_or_uuid>", 1, 2},
    Usage{"measure", "[<device>...]", 0, -1},
    Usage{"message", "<device> <sector> <message>", 2, -1},
    Usage{"ls", "[--target <target_type>] [--exec <command>] [-o <options>] [--tree]", 0, 0},
    Usage{"info", "[<device>...]", 0, -1},
    Usage{"deps", "[-o <options>] [<device>...]", 0, -1},
    Usage{"stats", "<command> [<options>] [<device>...]", 1, -1},
    Usage{"status", "[<device>...] [--noflush] [--target <target_type>]", 0, -1},
    Usage{"table", "[<device>...] [--concise] [--target <target_type>] [--showkeys]", 0, -1},
    Usage{"wait", "<device> [<event_nr>] [--noflush]", 0, 2},
    Usage{"mknodes", "[<device>...]", 0, -1, true},
    Usage{"mangle", "[<device>...]", 0, -1, true},
    Usage{"udevcreatecookie", "", 0, 0},
    Usage{"udevreleasecookie", "[<cookie>]", 0, 1},
    Usage{"udevflags", "<cookie>", 1, 1},
    Usage{"udevcomplete", "<cookie>", 1, 1},
    Usage{"udevcomplete_all", "[<age_in_minutes>]", 0, 1},
    Usage{"udevcookies", "", 0, 0},
    Usage{"target-version", "[<target>...]", 1, -1, true},
    Usage{"targets", "", 0, 0},
    Usage{"version", "", 0, 0},
    Usage{"setgeometry", "<device> <cyl> <head> <sect> <start>", 5, 5},
    Usage{"splitname", "<device> [<subsystem>]", 1, 2},
};

// Taken but not shown, as there.
constexpr std::array kUnlisted = {Usage{"udevcookie", "", 0, 0}, Usage{"tree", "", 0, 0}};

constexpr std::array kStatsUsages = {
    Usage{"help", "", 0, 0},
    Usage{"clear", "[--allregions|--regionid id] [--alldevices|<device>...] ", 0, -1, true},
    Usage{"create",
          "[--start <start> [--length <len>]\n"
          "\t    [--areas <nr_areas>] [--areasize <size>] \n"
          "\t    [--programid <id>] [--userdata <data> ] \n"
          "\t    [--bounds histogram_boundaries] [--precise] \n"
          "\t    [--segments] [--alldevices|<device>...] ",
          0, -1, true},
    Usage{"delete",
          "[--allprograms|--programid id] \n"
          "\t    [--allregions|--regionid id] \n"
          "\t    [--alldevices|<device>...] ",
          0, -1, true},
    Usage{"list", "[--allprograms|--programid id] [--allregions|--regionid id] ", 0, -1, true},
    Usage{"print",
          "[--clear] [--allprograms|--programid id] \n"
          "\t    [--allregions|--regionid id] \n"
          "\t    [--alldevices|<device>...] ",
          0, -1, true},
    Usage{"version", "", 0, -1},
};

template <size_t N>
const Usage* find_in(const std::array<Usage, N>& usages, std::string_view verb) {
  const auto found = std::find_if(usages.begin(), usages.end(),
                                  [verb](const Usage& usage) { return usage.verb == verb; });
  return found == usages.end() ? nullptr : &*found;
}

}  // namespace

const Usage* find_usage(std::string_view verb) {
  const Usage* const listed = find_in(kUsages, verb);
  return listed != nullptr ? listed : find_in(kUnlisted, verb);
}

const Usage* find_stats_usage(std::string_view verb) { return find_in(kStatsUsages, verb); }

void print_usage(std::ostream& out, std::string_view program, bool own) {
  fmt::print(out, "Usage:\n\n{}\n", program);
  fmt::print(out,
             "\t[--version] [-h|--help [-c|-C|--columns]]\n"
             "\t[-v|--verbose [-v|--verbose ...]] [-f|--force]\n"
             "\t[--checks] [--manglename {{none|hex|auto}}]\n"
             "\t[-r|--readonly] [--noopencount] [--noflush] [--nolockfs] [--inactive]\n"
             "\t[--udevcookie <cookie>] [--noudevrules] [--noudevsync] [--verifyudev]\n"
             "\t[-y|--yes] [--readahead {{[+]<sectors>|auto|none}}] [--retry]\n"
             "\t[-c|-C|--columns] [-o <fields>] [-O|--sort <sort_fields>]\n"
             "\t[-S|--select <selection>] [--nameprefixes]\n"
             "\t[--noheadings|--headings none|abbrev|full|0|1|2]\n"
             "\t[--separator <separator>]\n\n");
  for (const Usage& usage : kUsages) fmt::print(out, "\t{} {}\n", usage.verb, usage.arguments);
  fmt::print(out,
             "\n<device> may be device name or (if only one) -u <uuid> or -j <major> -m <minor>\n"
             "<mangling_mode> is one of 'none', 'auto' and 'hex'.\n"
             "<fields> are comma-separated.  Use 'help -c' for list.\n"
             "<concise_device_specification> has single-device entries separated by semi-colons:\n"
             "    <name>,<uuid>,<minor>,<flags>,<table>\n"
             "        where <flags> is 'ro' or 'rw' (the default) and any of <uuid>, <minor>\n"
             "        and <flags> may be empty. Separate extra table lines with commas.\n"
             "    E.g.: dev1,,,,0 100 linear 253:1 0,100 100 error;dev2,,,ro,0 1 error\n"
             "Table_file contents may be supplied on stdin.\n"
             "Options are: devno, devname, blkdevname.\n"
             "Tree specific options are: ascii, utf, vt100; compact, inverted, notrunc;\n"
             "                           blkdevname, [no]device, active, open, rw and uuid.\n");
  if (own) {
    fmt::print(out,
               "\nOnly here:\n"
               "\t[--mount <dir>] [--json]\n\n"
               "\ttree [-o <options>]\n"
               "\ttop [--once] [--interval <seconds>]\n"
               "\tgraph\n"
               "\tattach <device> [--direct-io] [-P] [--sector-size <bytes>] [-r]\n"
               "\tdetach <device>\n"
               "\tcreate --passthrough ...\n"
               "\tpassthrough <device> on|off\n"
               "\tserved [<device>...]\n"
               "\tlog\n"
               "\tthin-check|thin-dump|thin-ls|thin-delta|thin-rmap <directory> [<options>]\n"
               "\tthin-restore -i <file> -o <directory>\n"
               "\tthin-trim --metadata-dev <directory> --data-dev <device>\n");
  }
  fmt::print(out, "\n");
}

void print_stats_usage(std::ostream& out, std::string_view program) {
  fmt::print(out, "Usage:\n\n{} stats\n", program);
  fmt::print(out,
             "        [-h|--help]\n"
             "        [-v|--verbose [-v|--verbose ...]]\n"
             "        [--areas <nr_areas>] [--areasize <size>]\n"
             "        [--userdata <data>] [--clear]\n"
             "        [-o <fields>] [-O|--sort <sort_fields>]\n"
             "        [--programid <id>]\n"
             "        [--start <start>] [--length <length>]\n"
             "        [--segments] [--units <units>]\n\n");
  for (const Usage& usage : kStatsUsages) {
    fmt::print(out, "\t{} {}\n", usage.verb, usage.arguments);
  }
  fmt::print(out,
             "\n<device> may be device name or (if only one) -u <uuid> or -j <major> -m <minor>\n"
             "<fields> are comma-separated.  Use 'help -c' for list.\n\n");
}

}  // namespace mapperctl
