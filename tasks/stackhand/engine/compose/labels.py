"""The labels by which Compose marks what it makes, and those of our own."""

from __future__ import annotations

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
NUMBER_LABEL = "com.docker.compose.container-number"
ONEOFF_LABEL = "com.docker.compose.oneoff"
NETWORK_LABEL = "com.docker.compose.network"
# The hash of the configuration that a container was made from, or a network.
HASH_LABEL = "com.docker.compose.config-hash"
# On a new container: which one it is to replace.
REPLACE_LABEL = "com.docker.compose.replace"
# The folder and the files that a container was made from, as paths of the machine on which Compose ran.
FOLDER_LABEL = "com.docker.compose.project.working_dir"
FILES_LABEL = "com.docker.compose.project.config_files"

# Our own: names the kind of a service that cannot be recognised.
KIND_LABEL = "stackhand.kind"
