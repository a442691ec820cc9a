#!/bin/sh
# Runs $STACKHAND_SQL as the role $1 in the database $2.
#
# The text goes through the environment and stdin: \gexec, \if and \connect work from stdin only, and everybody sees a
# command line.
#
# psql takes the place of the shell. In most containers of Postgres the postmaster is process 1, and so becomes the
# parent of a process that a killed shell leaves behind; when that ends in any other way than with 0 or 1, the
# postmaster takes it for a crashed backend and restarts all of them.
exec psql -XAtqw -U "$1" -d "$2" <<STACKHAND_END
$STACKHAND_SQL
STACKHAND_END
