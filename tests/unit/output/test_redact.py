"""No secret's value gets through, and nothing else is garbled."""

from __future__ import annotations

import pytest

from stackhand.output.redact import Redactor, mask_passwords
from stackhand.output.secret_values import is_secret_name, looks_like_word


@pytest.mark.parametrize(
    "name",
    [
        "POSTGRES_PASSWORD",
        "DB_PASSWD",
        "REDIS_PASS",
        "DB_PWD",
        "PGPASSWORD",
        "API_TOKEN",
        "GITHUB_TOKEN_RW",
        "SECRET_KEY_BASE",
        "CLIENT_SECRET",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY",
        "APIKEY",
        "OPENAI_API_KEY",
        "GOOGLE_CREDENTIALS",
        "PRIVATE_KEY",
        "SSH_PASSPHRASE",
        "ENCRYPTION_KEY",
        "key",
        "db_password",
        "DbPassword",
        "JWT_SIGNING_KEY",
    ],
)
def test_names_that_say_secret(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "POSTGRES_USER",
        "DATABASE_URL",
        "KEYBOARD",
        "MONKEY",
        "PASSENGER_COUNT",
        "BYPASS",
        "POSTGRES_PASSWORD_FILE",
        "SECRET_PATH",
        "SECRETS_DIR",
        "AWS_ACCESS_KEY_ID",
        "KEY_NAME",
        "TOKEN_URL_PREFIX",
        "COMPASS_HEADING",
    ],
)
def test_names_that_do_not(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgres://app:hunter2@db:5432/app", "postgres://app:***@db:5432/app"),
        ("redis://:hunter2@cache/0", "redis://:***@cache/0"),
        ("amqp://a:b%40c%2Fd@mq//", "amqp://a:***@mq//"),
        ("postgresql+psycopg://a:b@h/x?y=1", "postgresql+psycopg://a:***@h/x?y=1"),
        ("two http://a:bbbb@h and https://c:dddd@h.", "two http://a:***@h and https://c:***@h."),
        ("https://example.org:8080/a@b", "https://example.org:8080/a@b"),
        ("http://host/path", "http://host/path"),
        ("user@host:22", "user@host:22"),
        ("DSN=mysql://root:p@ss:w0rd@db/x", "DSN=mysql://root:***@db/x"),
        ("mongodb://u:p#x?y@h1,h2/db", "mongodb://u:***@h1,h2/db"),
        ("url='redis://u:se cret@h'", "url='redis://u:se cret@h'"),
        ("sentinel://:pw@a:1;sentinel://:pw2@b:2", "sentinel://:***@a:1;sentinel://:***@b:2"),
        ("redis://:a/b+c==@cache:6379/0", "redis://:***@cache:6379/0"),
    ],
)
def test_passwords_in_urls(text: str, masked: str) -> None:
    assert mask_passwords(text) == masked


def knowing(*secrets: str, public: tuple[str, ...] = (), **environment: str) -> Redactor:
    redactor = Redactor()
    redactor.add(secrets)
    redactor.add_environment(environment)
    redactor.add_public(public)
    return redactor


@pytest.mark.parametrize(
    ("redactor", "text", "masked"),
    [
        (knowing("hunter22"), "password is hunter22!", "password is ***!"),
        (knowing("hunter22"), "xhunter22x hunter22", "x***x ***"),
        (knowing(POSTGRES_PASSWORD="s3cr3t-value"), "auth failed: s3cr3t-value", "auth failed: ***"),
        (knowing(POSTGRES_USER="somebody"), "user somebody", "user somebody"),
        (knowing(DATABASE_URL="postgres://u:hunter22@db/x"), "tried hunter22", "tried ***"),
        (knowing(DATABASE_URL="postgres://u:p%40ss%2Fword@db/x"), "tried p@ss/word", "tried ***"),
        (knowing(DATABASE_URL="postgres://u:p%40ss%2Fword@db/x"), "tried p%40ss%2Fword", "tried ***"),
        (knowing(PASSWORD="p@ss/word"), "redis://:p%40ss%2Fword@cache tried", "redis://:***@cache tried"),
        (knowing(PASSWORD="p@ss/word"), "dsn=p%40ss%2Fword", "dsn=***"),
        (knowing("hunter22\n"), "it was hunter22.", "it was ***."),
        (knowing("  hunter22  "), "it was hunter22.", "it was ***."),
        (knowing("-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----\n"), "line ijklmnop", "line ***"),
        (knowing("first-line\nsecond-line"), "a first-line\nsecond-line b", "a *** b"),
        (knowing("abc"), "abc is too short to mask", "abc is too short to mask"),
        (knowing(PASSWORD="true", TOKEN="None"), "true or None", "true or None"),
        (knowing("short-one", "short-one-longer"), "x short-one-longer y short-one", "x *** y ***"),
        (knowing("a+b(c)[d]*"), "regex a+b(c)[d]* inside", "regex *** inside"),
        (knowing("pässwörd-ü"), "mit pässwörd-ü", "mit ***"),
        (knowing(), "nothing to hide", "nothing to hide"),
        (knowing("hunter22"), "", ""),
        (knowing(PASSWORD="postgres", public=("postgres",)), "FATAL: password postgres", "FATAL: password ***"),
    ],
)
def test_text_from_elsewhere(redactor: Redactor, text: str, masked: str) -> None:
    assert redactor.text(text) == masked


def test_own_text_keeps_public_names() -> None:
    redactor = knowing("hunter22", PASSWORD="postgres", public=("postgres", "api"))
    assert redactor.own_text("postgres waits, not hunter22") == "postgres waits, not ***"


def test_masking_twice_changes_nothing() -> None:
    redactor = knowing("hunter22")
    once = redactor.text("hunter22 redis://:hunter22@h")
    assert redactor.text(once) == once


def test_what_is_learnt_later_counts() -> None:
    redactor = knowing("hunter22")
    assert redactor.text("hunter22 hunter33") == "*** hunter33"
    redactor.add(["hunter33"])
    assert redactor.text("hunter22 hunter33") == "*** ***"


def test_documents() -> None:
    redactor = knowing("hunter22", PASSWORD="postgres", public=("postgres",))
    document = {
        "services": [{"name": "postgres", "log_tail": ("using hunter22", "ok"), "attempts": 3, "error": None}],
        "ok": True,
        "ready_after": 1.5,
        "url": "redis://:other@h",
    }
    assert redactor.document(document) == {
        "services": [{"name": "postgres", "log_tail": ["using ***", "ok"], "attempts": 3, "error": None}],
        "ok": True,
        "ready_after": 1.5,
        "url": "redis://:***@h",
    }
