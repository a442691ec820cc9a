#!/bin/sh
# Finds the worker's main process by its command line, which everybody may read, and prints what is seen of it.
# $1 are the options of celery that a value follows.
# The environment that an entrypoint has made, and the working folder, are those of the process alone; its binary is
# there in any image. Only its own user may look at those: not even root may, without the
# capability SYS_PTRACE (Linux, ptrace(2)). Exit code 4: it is another user's, who is printed as uid:gid. 3: it was
# not found.
valued=" $1 "
# Whether these are the words of a worker: the program or Python's script is celery, and its subcommand is worker. A
# program that restarts a worker when its code changes (watchfiles) has such words, too, and is not meant.
works() {
  at=program value=
  for word; do
    case $value$at:${word##*/} in
      value*) value=;;
      program:*python* | program:*pypy*) at=script;;
      script:-[XW]) value=value;;
      script:-*) ;;
      program:*celery* | script:*celery* | inner:celery) at=subcommand;;
      script:airflow | script:*manage*) at=inner;;
      script:__main__.py) case $word in */celery/*) at=subcommand;; *) return 1;; esac;;
      program:* | script:* | inner:*) return 1;;
      *) case $valued in *" $word "*) value=value; continue;; esac
        case $word in -*) ;; *) [ "$word" = worker ]; return;; esac
    esac
  done
  return 1
}
found=
for folder in /proc/[0-9]*; do
  line="$(tr '\0' ' ' < "$folder/cmdline" 2>/dev/null) "
  program=${line%% *}
  case ${program##*/} in *python* | *pypy* | celery | *celeryd:*) ;; *) continue;; esac
  set -f
  # shellcheck disable=SC2086  # word by word
  case $line in *celeryd:*) ;; *) works $line || continue;; esac
  number=${folder#/proc/}
  if [ -z "$found" ] || [ "$number" -lt "$found" ]; then found=$number; fi
done
set +f
[ -n "$found" ] || { echo "none of its processes can be seen to be a celery worker"; exit 3; }
ids() {
  while read -r name real rest; do
    case $name in Uid:) uid=$real;; Gid:) gid=$real;; PPid:) parent=$real;; esac
  done < "/proc/$1/status"
}
ids self
own=$uid:$gid
ids "$found"
[ "$uid:$gid" = "$own" ] || { echo "$uid:$gid"; exit 4; }
[ -n "$(readlink "/proc/$found/exe")" ] || { echo "the program of its process cannot be read"; exit 3; }
read -r host < /proc/sys/kernel/hostname
printf '\036worker %s %s\n' "$found" "$host"
tr '\0' '\n' < "/proc/$found/cmdline"
# The memory that it and its children share with no other process, in kB.
for folder in /proc/[0-9]*; do
  number=${folder#/proc/} parent=
  ids "$number" 2>/dev/null
  [ "$number" = "$found" ] || [ "$parent" = "$found" ] || continue
  private=0
  while read -r name size rest; do
    case $name in Private_*) private=$((private + size));; esac
  done 2>/dev/null < "$folder/smaps_rollup"
  printf '\036memory %s %s\n' "$number" "$private"
done
