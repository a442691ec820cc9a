#!/bin/sh
# Finds the server inside its own container: PGPORT and PGHOST as the server has written them into postmaster.pid
# (PostgreSQL, src/include/utils/pidfile.h: line 4 is the port, line 5 the folder of the socket). Starts no process.
# Stands before run_sql.sh and set_password.sh.
if [ -r "$PGDATA/postmaster.pid" ]; then
  { read -r _; read -r _; read -r _; read -r port; read -r folder; } <"$PGDATA/postmaster.pid"
  if [ -n "$port" ]; then export PGPORT="$port" PGHOST="${folder:-localhost}"; fi
fi
