"""Where the other services are. Addresses come from the environment, passwords from secret files only."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

QUEUE = "workflow"
# There while the worker listens. In a tmpfs, so that it is gone when the container starts again.
READY = Path("/run/worker/ready")


def secret(variable: str) -> str:
    """The content of the file that an environment variable such as REDIS_PASSWORD_FILE names."""
    return Path(os.environ[variable]).read_text(encoding="utf-8").strip()


def redis_url(database: int) -> str:
    user = quote(os.environ.get("REDIS_USER", "app"), safe="")
    password = quote(secret("REDIS_PASSWORD_FILE"), safe="")
    host = os.environ.get("REDIS_HOST", "redis")
    port = os.environ.get("REDIS_PORT", "6379")
    return f"redis://{user}:{password}@{host}:{port}/{database}"


def database_parameters() -> dict[str, str]:
    """Connection parameters for psycopg. Not a URL: a URL with a password in it ends up in logs."""
    return {
        "host": os.environ["DATABASE_HOST"],
        "port": os.environ["DATABASE_PORT"],
        "dbname": os.environ.get("DATABASE_NAME", "app"),
        "user": os.environ["DATABASE_USER"],
        "password": secret("DATABASE_PASSWORD_FILE"),
        "connect_timeout": "5",
    }


def ollama_url() -> str:
    return os.environ.get("OLLAMA_URL", "http://ollama:11434")
