"""Files that a program takes only if root owns them, or if others can't write to them.

Such a file stays root's: given to another user, its program would ignore it, mostly without a word. Programs are
recognised by where a service mounts the file, and by names that mean nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Program:
    """A program that is strict about its files.

    `places` are the paths in a container where it looks for them: folders, or single files. `folders` and `files` are
    names that are these files wherever they lie. With `only_roots` the owner must be root; else it may also be the user
    that the program runs as.
    """

    name: str
    places: tuple[str, ...]
    folders: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    only_roots: bool = True

    @property
    def reason(self) -> str:
        """Why its files are left alone."""
        owner = "root does not own" if self.only_roots else "neither root nor its own user owns"
        return f"{self.name} refuses files that {owner}, or that others can write to"


PROGRAMS = (
    # crontab(5), cron(8): "must be owned by root", "must not be group- or world-writable".
    Program(
        "cron",
        (
            *(f"/etc/cron.{each}" for each in ("d", "hourly", "daily", "weekly", "monthly")),
            "/etc/crontab",
            "/etc/crontabs",
            "/etc/periodic",
            "/var/spool/cron",
        ),
        frozenset(f"cron.{each}" for each in ("d", "hourly", "daily", "weekly", "monthly")),
    ),
    # sudoers(5): "owned by uid 0", "must not be world-writable".
    Program("sudo", ("/etc/sudoers", "/etc/sudoers.d"), frozenset({"sudoers.d"}), frozenset({"sudoers"})),
    Program("doas", ("/etc/doas.conf", "/etc/doas.d"), frozenset({"doas.d"}), frozenset({"doas.conf"})),
    # logrotate(8): "Ignoring … because the file owner is wrong (should be root or user with uid 0)".
    Program("logrotate", ("/etc/logrotate.conf", "/etc/logrotate.d"), frozenset({"logrotate.d"})),
    # vsftpd: "config file not owned by correct user, or not a file".
    Program("vsftpd", ("/etc/vsftpd.conf", "/etc/vsftpd"), files=frozenset({"vsftpd.conf"})),
    # StrictModes in sshd_config(5); ssh(1) says the same of ~/.ssh/config.
    Program(
        "ssh",
        ("/etc/ssh",),
        frozenset({".ssh"}),
        frozenset(
            {
                "authorized_keys",
                "authorized_keys2",
                *(f"ssh_host_{each}_key" for each in ("rsa", "dsa", "ecdsa", "ed25519")),
            }
        ),
        only_roots=False,
    ),
    # https://www.elastic.co/guide/en/beats/libbeat/current/config-file-permissions.html
    Program(
        "Beats",
        tuple(
            f"/usr/share/{each}/{each}.yml"
            for each in ("filebeat", "metricbeat", "heartbeat", "packetbeat", "auditbeat", "journalbeat")
        ),
        only_roots=False,
    ),
    # monit(1): "must be owned by the user who runs monit, with permissions 0700 or less".
    Program("monit", ("/etc/monitrc", "/etc/monit"), files=frozenset({"monitrc"}), only_roots=False),
)
FOLDERS = {name: program for program in PROGRAMS for name in program.folders}
FILES = {name: program for program in PROGRAMS for name in program.files}
BY_NAME = {program.name: program for program in PROGRAMS}


def program_at(target: str) -> Program | None:
    """Return the strict program that reads what a service mounts at this path; None if there is none.

    >>> [found.name if (found := program_at(each)) else "" for each in ("/etc/cron.d/x", "/root/.ssh/config", "/etc")]
    ['cron', 'ssh', '']
    """
    path = PurePosixPath(target or "/")
    for place in (path, *path.parents):
        for program in PROGRAMS:
            if str(place) in program.places or place.name in program.folders:
                return program
    return FILES.get(path.name)
