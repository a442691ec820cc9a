#!/bin/sh
# current.sh COMMAND...: runs a command with today's engine, beside whatever engine this machine has.
#
# The engine, containerd, runc, docker, Compose and buildx are Debian sid's; the image store is containerd's, as on fresh
# installations of today. Needs Debian as root, and no init system. The packages are unpacked into a folder, which is
# kept for the next run; to take newer ones, remove it: ~/.cache/stackhand/engines. Only the tools that this script
# itself needs are installed. All package sources are this machine's own, with another suite.
#
# The engine has a mount and a network namespace of its own, with user-mode networking, so that the bridges and the
# firewall of this machine stay as they are. The command runs in the same namespaces, on the machine's own files: what
# it mounts and what it publishes is where it expects it. The engine lives as long as the command and leaves nothing.
#
# Exit code: the command's; 69 where today's engine can't be had, with the reason on stderr.
set -eu

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/stackhand/engines
packages=$cache/packages root=$cache/root bin=$cache/bin config=$cache/config
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

unavailable() { echo "today's engine can't be had here: $1" >&2; exit 69; }

# This machine's first archive, with the suite sid. The lists of a mirror that was frozen have expired.
sid() {
    apt-get -qq -o Dir::Etc::SourceList="$packages/sid.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$packages/lists" \
        -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache= -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3 \
        -o APT::Sandbox::User=root "$@" >&2
}

install_tools() {
    for tool in patchelf slirp4netns iptables ip; do
        command -v "$tool" >/dev/null && continue
        set -- apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install patchelf slirp4netns iptables iproute2
        DEBIAN_FRONTEND=noninteractive "$@" >&2 || { apt-get -qq update >&2 && DEBIAN_FRONTEND=noninteractive "$@" >&2; }
        return
    done
}

unpack() {
    rm -rf "$packages" "$root" "$bin" "$config"
    mkdir -p "$packages/lists/partial" "$root" "$bin" "$config/cli-plugins"
    archive=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*] \)\{0,1\}\([^ ]*\) .*/\2/p' \
        /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive sid main" >"$packages/sid.list"
    sid update || return
    (cd "$packages" && sid download docker.io docker-cli docker-compose docker-buildx containerd runc tini-static \
        libc6 libseccomp2) || return
    for package in "$packages"/*.deb; do dpkg -x "$package" "$root" || return; done

    libraries=$(echo "$root"/usr/lib/*-linux-gnu*)
    for program in "$root"/usr/bin/docker "$root"/usr/sbin/dockerd "$root"/usr/sbin/docker-proxy "$root"/usr/bin/containerd \
        "$root"/usr/bin/containerd-shim-runc-v2 "$root"/usr/sbin/runc; do
        # What needs a newer libc than this machine's gets sid's.
        if ldd "$program" 2>&1 | grep -q 'not found'; then
            patchelf --set-interpreter "$(echo "$libraries"/ld-linux*)" --set-rpath "$libraries" "$program" || return
        fi
        ln -s "$program" "$bin/" || return
    done
    ln -s "$root/usr/bin/tini-static" "$bin/docker-init"
    ln -s "$root"/usr/libexec/docker/cli-plugins/* "$config/cli-plugins/"
    rm -rf "$packages"/*.deb "$packages/lists"
    touch "$cache/unpacked"
}

# Each run has a folder of its own, which it holds locked. What a run that was killed has left is removed.
make_run_folder() {
    for old in "$cache"/run.*; do
        [ ! -e "$old/lock" ] || flock --nonblock "$old/lock" rm -rf "$old" || true
    done
    run=$(mktemp -d "$cache/run.XXXXXX")
    exec 9>"$run/lock"
    flock 9
    mkdir "$run/cgroup"
    echo '{"features": {"containerd-snapshotter": true}}' >"$run/daemon.json"
    echo 'nameserver 10.0.2.3' >"$run/resolv.conf" # slirp4netns
}

start() {
    # setpriv: it ends with this script, also if that is killed. The shell waits for the network, then becomes the engine.
    # shellcheck disable=SC2016
    PATH=$bin:$PATH setsid setpriv --pdeathsig TERM unshare --mount --net sh -c '
        mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)"
        mount --rbind /sys/fs/cgroup "$1/cgroup"
        mount -t sysfs sysfs /sys # the engine looks at its bridges there
        mount --move "$1/cgroup" /sys/fs/cgroup
        until ip link show tap0 >/dev/null 2>&1; do sleep 0.05; done
        exec dockerd --config-file="$1/daemon.json" --data-root="$1/data" --exec-root="$1/exec" --pidfile="$1/pid" \
            --host="unix://$1/docker.sock"' sh "$run" >"$run/log" 2>&1 </dev/null 9>&- &
    engine=$!
    host=$(readlink /proc/self/ns/net)
    while [ "$(readlink "/proc/$engine/ns/net")" = "$host" ]; do sleep 0.05; done
    setsid setpriv --pdeathsig TERM slirp4netns --configure --mtu=65520 "$engine" tap0 >"$run/slirp.log" 2>&1 </dev/null 9>&- &
    network=$!
    tries=0
    until inside docker version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ] || ! kill -0 "$engine" 2>/dev/null; then
            tail -n 20 "$run/slirp.log" "$run/log" >&2
            return 1
        fi
        sleep 0.2
    done
    inside docker info --format 'engine {{.ServerVersion}}, images in {{.Driver}} {{.DriverStatus}}' >&2
    inside docker compose version >&2
}

inside() {
    nsenter --target "$engine" --mount --net --wd="$PWD" \
        env PATH="$bin:$PATH" DOCKER_HOST="unix://$run/docker.sock" DOCKER_CONFIG="$config" "$@"
}

# shellcheck disable=SC2317 # a trap calls it
end() {
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$engine" ] || {
        inside sh -c 'docker ps --all --quiet | xargs --no-run-if-empty docker rm --force' >/dev/null 2>&1 || true
        kill "$engine" "$network" 2>/dev/null || true
        wait "$engine" "$network" 2>/dev/null || true
    }
    [ -z "$run" ] || rm -rf "$run"
}

[ $# -gt 0 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || unavailable "it needs root"
grep -qx 'ID=debian' /etc/os-release 2>/dev/null || unavailable "it needs Debian"
[ ${#cache} -le 50 ] || unavailable "$cache is too long a path for sockets; set XDG_CACHE_HOME to a shorter one"

mkdir -p "$cache"
exec 8>"$cache/lock"
flock 8
install_tools || unavailable "apt can't install the tools that it needs"
[ -e "$cache/unpacked" ] || unpack || unavailable "apt can't get Debian sid's packages"
run='' engine='' network=''
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
make_run_folder
exec 8>&-
start || unavailable "the engine does not start; its last lines are above"
code=0
inside "$@" || code=$?
exit "$code"
