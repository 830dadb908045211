# bash completion for mapperctl: verbs, options, names of devices, targets.

_mapperctl_mount() {
  local i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --mount) printf '%s\n' "${COMP_WORDS[i + 1]}"; return ;;
      --mount=*) printf '%s\n' "${COMP_WORDS[i]#--mount=}"; return ;;
    esac
  done
}

_mapperctl_ask() {
  local mount
  mount=$(_mapperctl_mount)
  MAPPERFS_MOUNT=${mount:-$MAPPERFS_MOUNT} timeout 2 mapperctl "$@" 2>/dev/null
}

_mapperctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
  local verbs='help create remove remove_all suspend resume load clear reload wipe_table rename
    measure message ls info deps stats status table wait mknodes mangle udevcreatecookie
    udevreleasecookie udevflags udevcomplete udevcomplete_all udevcookies target-version targets
    version setgeometry splitname tree top graph attach detach
    passthrough served log
    thin-check thin-dump thin-restore thin-ls thin-delta thin-rmap thin-trim'
  local options='--mount --json --help --version --verbose --force --checks --manglename --readonly
    --noopencount --noflush --nolockfs --inactive --yes --readahead --retry --columns --options
    --sort --select --nameprefixes --noheadings --headings --separator --major --minor --uuid --uid
    --gid --mode --notable --table --concise --deferred --setuuid --target --exec --tree --showkeys
    --count --interval --rows --unquoted --passthrough'
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --mount) ((i++)) ;;
      -*) ;;
      *) verb=${COMP_WORDS[i]}; break ;;
    esac
  done
  case $prev in
    --mount) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    --manglename) mapfile -t COMPREPLY < <(compgen -W 'auto hex none' -- "$cur"); return ;;
    --headings) mapfile -t COMPREPLY < <(compgen -W 'none abbrev full' -- "$cur"); return ;;
    --readahead) mapfile -t COMPREPLY < <(compgen -W 'auto none' -- "$cur"); return ;;
    --target)
      mapfile -t COMPREPLY < <(compgen -W "$(_mapperctl_ask targets | cut -d' ' -f1)" -- "$cur")
      return ;;
  esac
  case $verb in
    attach) options='--direct-io -P --sector-size -r --mount' ;;
    top) options='--once --interval --json --mount' ;;
    graph | detach | passthrough | served | log) options='--mount' ;;
    thin-*)
      options=$(timeout 2 mapperctl "$verb" --help | grep -o -- '--[a-z0-9-]*')
      if [[ $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
      fi ;;
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    return
  fi
  case $verb in
    '') mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur") ;;
    stats)
      mapfile -t COMPREPLY < <(compgen -W "help clear create delete list print version \
        $(_mapperctl_ask ls | cut -f1)" -- "$cur") ;;
    target-version)
      mapfile -t COMPREPLY < <(compgen -W "$(_mapperctl_ask targets | cut -d' ' -f1)" -- "$cur") ;;
    create | splitname | help | targets | version | ls | tree | top | graph | log | udev*) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$(_mapperctl_ask ls | cut -f1)" -- "$cur") ;;
  esac
}

complete -F _mapperctl mapperctl
