#!/bin/sh
# Prints what is known of a PgBouncer inside its container, in sections (checks/scripts.py): its configuration files
# (ini), its auth_file (users), whether that can be written to (writable), the account that it runs under where that is
# another (account), and the answer of its console (console, databases). `none` alone: no configuration can be read.
show() { if [ -r "$1" ]; then printf '\036%s %s\n' "$2" "$1"; cat "$1"; fi; }
# shellcheck disable=SC2086  # several files
setting() { sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" $files 2>/dev/null | tail -n 1; }
account() { sed -n 's/^Uid:[[:space:]]*[0-9]*[[:space:]]*\([0-9]*\).*/\1/p' "$1/status"; }
ini=
for process in /proc/[0-9]*; do
  command=$(tr '\000' '\n' <"$process/cmdline" 2>/dev/null) || continue
  case "$(printf '%s\n' "$command" | head -n 1)" in
    pgbouncer | */pgbouncer) ini=$(printf '%s\n' "$command" | tail -n 1); break ;;
  esac
done
[ -r "$ini" ] || { printf '\036none %s\n' "$ini"; exit 0; }
show "$ini" ini
files=$ini
# shellcheck disable=SC2013  # a path without spaces
for file in $(sed -n 's/^%include[[:space:]]*//p' "$ini"); do show "$file" ini; files="$files $file"; done
userlist=$(setting auth_file)
if [ -n "$userlist" ]; then
  show "$userlist" users
  [ -w "$userlist" ] && printf '\036writable %s\n' "$userlist"
fi
# The console lets in the account that PgBouncer runs under without a password. It looks up any other (see _console_users).
if [ "$(account "$process")" != "$(account /proc/self)" ]; then
  printf '\036account %s\n' "$(account "$process")"
  exit 0
fi
folder=$(setting unix_socket_dir)
# shellcheck disable=SC2086  # several files
grep -q '^[[:space:]]*unix_socket_dir' $files || folder=/tmp
port=$(setting listen_port)
if [ -n "$folder" ] && command -v psql >/dev/null; then
  printf '\036console\n'
  PGHOST=$folder PGPORT=${port:-6432} PGUSER=pgbouncer PGDATABASE=pgbouncer PGCONNECT_TIMEOUT=3 \
    psql -XAqw -F '	' -P footer=off -c 'SHOW CONFIG' -c "\\echo $(printf '\036')databases" -c 'SHOW DATABASES' 2>&1
fi
true
