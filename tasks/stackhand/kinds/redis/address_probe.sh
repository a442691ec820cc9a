#!/bin/sh
# Looks for where a Redis listens. In variables: CONFIG, the file that its command names; PLACES to look for one in.
# A server shows where it listens in the list of processes: `redis-server *:6380`. The rest its configuration has.
{
for process in /proc/[0-9]*; do
  line=$(tr '\0' ' ' < "$process/cmdline")
  program=${line%% *} rest=${line#* }
  case ${program##*/} in
    redis-server | valkey-server | keydb-server) printf '\036title %s\n' "${rest%% *}";;
  esac
done
set -f
if [ -n "$CONFIG" ]; then
  configs="$CONFIG $(sed -n 's/^[[:space:]]*include[[:space:]]*//p' "$CONFIG")"
else
  # shellcheck disable=SC2086  # several folders
  configs=$(find $PLACES -maxdepth 3 -type f \( -name 'redis*.conf' -o -name 'valkey*.conf' -o -name 'keydb*.conf' \) \
    -size -200k | head -20)
fi
for config in $configs; do
  printf '\036config %s\n' "$config"
  grep -E '^[[:space:]]*(port|unixsocket|tls-(port|cert-file|key-file|auth-clients))[[:space:]]' "$config"
done
} 2>/dev/null
true
