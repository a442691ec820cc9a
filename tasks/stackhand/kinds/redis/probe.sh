#!/bin/sh
# Asks a Redis, from inside its container, in one go. In variables: OPTIONS of redis-cli; LOGINS, how many USER_0 PASS_0,
# USER_1 PASS_1 … to log in as; KEYS, how many passwords KEY_0, KEY_1 … may be an administrator's; ACLFILE and CONFIG,
# the files that the command names; PLACES to look for such files in.
#
# Logs in as every user that clients use. All else is asked with the server's own credentials where they may: what a
# client's user may not do ends up in the ACL LOG, which has room for 128 entries. Who may administer is found out: an
# ACL file has the names of users with their rules, and hashes of passwords that are known here; else the user without
# a name is tried. Only INFO is asked as a client where nobody else may.
# With NETWORK (-h ADDRESS, the container's own) it is also asked as other containers do: over loopback it may answer
# what it refuses everybody else.
# The words of each question end up in the container's list of processes, passwords do not.

# shellcheck disable=SC2086  # OPTIONS, PLACES, files and configs are lists of words
cli=$(command -v redis-cli || command -v valkey-cli || command -v keydb-cli) || exit 127
ask() {
  asker=$1 REDISCLI_AUTH=$2; shift 2
  if [ -n "$REDISCLI_AUTH" ]; then export REDISCLI_AUTH; else unset REDISCLI_AUTH; fi
  "$cli" $OPTIONS ${asker:+--user "$asker"} --no-auth-warning "$@" 2>&1 </dev/null
}
section() { printf '\036%s\n' "$*"; }
administers() { case $(ask "$1" "$2" CONFIG GET dir) in dir*) true;; *) false;; esac; }
rules() { cat $files $configs 2>/dev/null | sed -n 's/^[[:space:]]*user[[:space:]][[:space:]]*//p'; }
rules_of() { rules | sed -n "s/^$1 //p"; }
may_administer() {
  case " $* " in
    *" +config"*) true;;
    *" -@admin "* | *" -@dangerous "* | *" -@slow "* | *" -config"*) false;;
    *" +@all "* | *" allcommands "* | *" +@admin "* | *" +@dangerous "* | *" +@slow "*) true;;
    *) false;;
  esac
}
# Finds an administrator by the files of users that are known so far.
search() {
  for config in $configs; do
    files="$files $(sed -n 's/^[[:space:]]*aclfile[[:space:]]*//p' "$config" 2>/dev/null | tr -d "\"'")"
  done
  j=0
  while [ $j -lt "$KEYS" ] && [ -z "$admin" ]; do
    eval "word=\$KEY_$j"
    hash=$(printf %s "$word" | sha256sum 2>/dev/null | cut -c 1-64)
    for user in $(rules | while read -r name rules; do
        may_administer "$rules" || continue
        case " $rules " in *" off "*) ;; *" #$hash "* | *" >$word "*) echo "$name";; esac
      done); do
      if administers "$user" "$word"; then admin="key $j" admin_user=$user admin_word=$word; break; fi
    done
    j=$((j + 1))
  done
}
info='' admin='' admin_user='' admin_word='' entered='' word=''
i=0
while [ $i -lt "$LOGINS" ]; do
  eval "user=\$USER_$i word=\$PASS_$i"
  answer=$(ask "$user" "$word" PING)
  section login $i; printf '%s\n' "$answer"
  [ "$answer" = PONG ] && entered="$entered $i"
  i=$((i + 1))
done
if [ -n "$NETWORK" ]; then section network; OPTIONS="$OPTIONS $NETWORK" ask "" "" PING; fi
configs=$CONFIG files=$ACLFILE
[ -z "$configs$files" ] || search
for i in $entered; do
  eval "user=\$USER_$i word=\$PASS_$i"
  given=$(rules_of default)
  if [ -z "$admin$user" ] && { [ -z "$given" ] || may_administer "$given"; } && administers "" "$word"; then
    admin="login $i" admin_user='' admin_word=$word
  fi
done
if [ -z "$admin$ACLFILE$CONFIG" ]; then
  found=$(find $PLACES -maxdepth 3 -type f \( -name '*.acl' -o -name 'redis*.conf' -o -name 'valkey*.conf' \
    -o -name 'keydb*.conf' \) -size -200k 2>/dev/null | head -20)
  for file in $found; do case $file in *.acl) files="$files $file";; *) configs="$configs $file";; esac; done
  search
fi
inform() { case $info in '#'*) ;; *) info=$(ask "$1" "$2" INFO) informed_user=$1 informed_word=$2;; esac; }
[ -z "$admin" ] || inform "$admin_user" "$admin_word"
for i in $entered; do
  [ -n "$admin" ] || eval "inform \"\$USER_$i\" \"\$PASS_$i\""
done
told=$(printf '%s\n' "$info" | tr -d '\r' | sed -n 's/^config_file://p')
case " $configs " in
  *" $told "*) ;;
  *) configs="$configs $told"; [ -n "$admin" ] || search;;
esac
if [ -n "$admin" ]; then
  inform "$admin_user" "$admin_word"
  section admin "$admin"; printf '%s\n' "$admin_user"
  section users; ask "$admin_user" "$admin_word" ACL LIST
  section dir; ask "$admin_user" "$admin_word" CONFIG GET dir
  section aclfile; ask "$admin_user" "$admin_word" CONFIG GET aclfile
fi
case $info in '#'*) section info; printf '%s\n' "$info";; esac
case $info in *cluster_enabled:1*) section cluster; ask "$informed_user" "$informed_word" CLUSTER INFO;; esac
for file in $files; do section file "$file"; cat "$file" 2>/dev/null; done
for config in $configs; do
  section config "$config"
  grep -E '^[[:space:]]*(aclfile|user|appendonly|dir|requirepass)[[:space:]]' "$config" 2>/dev/null
done
true
