#!/bin/sh
# Asks from inside a container which hosts and ports it reaches: $1 $2 $3 $4 … are host, port, host, port.
# Each gets $WITHIN whole seconds. Connections that wait for an answer are read first, before this script makes its own.
export LC_ALL=C
has() { command -v "$1" >/dev/null 2>&1; }
printf '\036now %s\n' "$(date +%s)"
for table in /proc/net/tcp /proc/net/tcp6; do
  [ -r $table ] || continue
  # State 02 is SYN_SENT (Linux, include/net/tcp_states.h).
  if has grep; then grep ' 02 ' $table; else cat $table; fi
done
limit=; has timeout && timeout "$WITHIN" true 2>/dev/null && limit=timeout
tool=
if [ "$limit" ] && has bash; then tool=bash
elif has nc; then
  # Small netcats know no -z: those get an empty input, and one that stays connected until the end has reached it.
  tool=nc; case $(nc --help 2>&1; nc -h 2>&1) in *-z*) tool=ncz ;; esac
  [ $tool = ncz ] || [ "$limit" ] || tool=
fi
[ "$tool" ] || ! has python3 || tool=python3
reach() {
  # shellcheck disable=SC2016  # bash, not this shell, has $0 and $1
  case $tool in
  bash) said=$(timeout "$WITHIN" bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1) ;;
  ncz) said=$(nc -v -z -w "$WITHIN" "$1" "$2" 2>&1 </dev/null) ;;
  nc) said=$(timeout "$WITHIN" nc -w 1 "$1" "$2" 2>&1 >/dev/null </dev/null) ;;
  python3) said=$(python3 -c 'import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), int(sys.argv[3])).close()
except OSError as error:
    sys.exit(str(error))' "$1" "$2" "$WITHIN" 2>&1) ;;
  esac
  code=$?
  [ $tool = nc ] && [ -z "$said" ] && case $code in 124|143) code=0 ;; esac
  address=
  if [ $code != 0 ]; then
    address=-
    [ "$said" ] || said="no answer within $WITHIN s"
    if has getent && hosts=$(getent hosts "$1"); then address=${hosts%% *}; fi
  fi
  set -f
  # shellcheck disable=SC2086  # on one line
  set -- "$1" "$2" "$code" "${address:-?}" $said
  printf '\036reply %s\n' "$*"
}
printf '\036tool %s\n' "$tool"
[ "$tool" ] && while [ $# -gt 0 ]; do reach "$1" "$2" & shift 2; done
wait
