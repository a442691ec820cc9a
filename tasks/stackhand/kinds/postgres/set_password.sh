#!/bin/sh
# Runs psql's \password ($3) as the role $1 in the database $2, with the new password $STACKHAND_NEW.
# Without a terminal psql reads both answers to \password from stdin. It takes the place of the shell: see run_sql.sh.
exec psql -XAtqw -v ON_ERROR_STOP=1 -U "$1" -d "$2" -c "$3" <<STACKHAND_END
$STACKHAND_NEW
$STACKHAND_NEW
STACKHAND_END
