"""No secret's value gets through, and nothing else is garbled."""

from __future__ import annotations

import base64
import json
import random
import string
import time
from urllib.parse import quote

import pytest

from stackhand.errors import CommandFailed, StackError
from stackhand.output.redact import MASK, Redactor, mask_part, message_of
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
        "GITHUB_PAT",
        "RABBITMQ_ERLANG_COOKIE",
        "AUTH_HEADER",
        "NEO4J_AUTH",
        "AccountKey",
        "SharedAccessKey",
        "spring.datasource.password",
        "x-api-key",
        "traefik.http.middlewares.a.basicauth.users",
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
        "PATH",
        "MAX_PATTERNS",
        "COOKIE_DOMAIN",
        "SESSION_COOKIE_SECURE",
        "PASSWORD_MIN_LENGTH",
        "ACCESS_TOKEN_EXPIRE_MINUTES",
        "OAUTH_TOKEN_URL",
        "TOKENIZERS_PARALLELISM",
        "VAPID_PUBLIC_KEY",
        "POSTGRES_HOST_AUTH_METHOD",
        "SSH_AUTH_SOCK",
        "OLDPWD",
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
    assert Redactor().text(text) == masked


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
        (knowing(PASSWORD="postgres", public=("postgres",)), "postgres://postgres", "postgres://postgres"),
    ],
)
def test_text_from_elsewhere(redactor: Redactor, text: str, masked: str) -> None:
    assert redactor.text(text) == masked


SHOP = {
    "POSTGRES_PASSWORD": "shop",
    "ADMIN_TOKEN": "root",
    "APP_SECRET": "start",
    "DB_USER": "sales",
    "DB_PASS": "sales",
}
NAMES = ("bug-shop", "shop-db", "shop-api", "bug-shop_shop_files")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("it was shop.", "it was ***."),
        ("'shop' shop:shop", "'***' ***:***"),
        ("workshop shops shop_files _shop", "workshop shops shop_files _shop"),
        ("shop-api asks shop-db:5432 of bug-shop", "shop-api asks shop-db:5432 of bug-shop"),
        ("bug-shop_shop_files bug-shop-shop-api-1", "bug-shop_shop_files bug-shop-shop-api-1"),
        ("shop-api2 shop-dbx", "***-api2 ***-dbx"),
        ("restarting; start", "restarting; ***"),
        # A role, and the words that everybody would guess, are no secret by themselves.
        ('password authentication failed for user "sales"', 'password authentication failed for user "sales"'),
        ("Access denied for user 'root'@'10.0.0.1'", "Access denied for user 'root'@'10.0.0.1'"),
        ("password: sales, password is root", "password: ***, password is ***"),
        ("postgres://sales:sales@shop-db/sales", "postgres://sales:***@shop-db/sales"),
    ],
)
def test_a_secret_that_looks_like_a_word(text: str, masked: str) -> None:
    redactor = knowing(public=NAMES, **SHOP)
    assert redactor.text(text) == masked
    own = "would start shop-api: root says shop, sales"
    assert redactor.own_text(own) == own


@pytest.mark.parametrize(
    ("value", "is_word"),
    [
        ("shop", True),
        ("Shop", True),
        ("SHOP", True),
        ("shop-api", True),
        ("my_app.db", True),
        ("db1", True),
        ("54321", True),
        ("/run/secrets/db_password", True),
        ("hunter22", False),
        ("p@ss", False),
        ("kJhGfDsAq", False),
        ("qwxzjkvbnmlkjhgfdsapoiuy", False),
        ("550e8400-e29b-41d4-a716-446655440000", False),
        ("123456789012345", False),
    ],
)
def test_what_looks_like_a_word(value: str, is_word: bool) -> None:
    assert looks_like_word(value) is is_word


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("host=db user=u password=dsn-1 dbname=x", "host=db user=u password=*** dbname=x"),
        ("host=db password='a b' dbname=x", "host=db password='***' dbname=x"),
        ("jdbc:postgresql://db/x?user=u&password=p-1&ssl=true", "jdbc:postgresql://db/x?user=u&password=***&ssl=true"),
        ("url: jdbc:mysql://db/x?password=p-1", "url: jdbc:mysql://db/x?password=***"),
        ("Server=db;User Id=sa;Password=P@ss&w;Pwd=x1y;", "Server=db;User Id=sa;Password=***;Pwd=***;"),
        ("cache:6379,password=a,b,ssl=True", "cache:6379,password=***,ssl=True"),
        ("AccountName=x;AccountKey=az44==;Suffix=y", "AccountName=x;AccountKey=***;Suffix=y"),
        ("SharedAccessKeyName=n;SharedAccessKey=k4+/=", "SharedAccessKeyName=n;SharedAccessKey=***"),
        ("https://h/c?sv=1&sig=aB%2F3&se=2", "https://h/c?sv=1&sig=***&se=2"),
        ('{"password": "x y", "user": "z", "api_key":"k-1"}', '{"password": "***", "user": "z", "api_key":"***"}'),
        (r'{"log":"{\"password\":\"x1\"}"}', r'{"log":"{\"password\":\"***\"}"}'),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ('"authorization":"Basic dXNlcjpw"', '"authorization":"***"'),
        ("sent Bearer ab1.cd-2_ef", "sent Bearer ***"),
        ("Cookie: session=abc; theme=dark", "Cookie: ***"),
        ("git clone https://ghp_0123456789abcdefghij@github.com/x", "git clone https://***@github.com/x"),
        ("glpat-0123456789abcdefghij", "***"),
        ("redis-server --requirepass hunter", "redis-server --requirepass ***"),
        ("app --db-password=hunter --port 80", "app --db-password=*** --port 80"),
        ("redis-cli -h x -a hunter ping", "redis-cli -h x -a *** ping"),
        ("mysqladmin ping -uroot -phunter", "mysqladmin ping -uroot -p***"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\ndef\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
        ),
        # What only looks so.
        ("password: required", "password: required"),
        ("token=default key=name secret: shop-tls", "token=default key=name secret: shop-tls"),
        ("password=$DB_PASSWORD password=***", "password=$DB_PASSWORD password=***"),
        ("Bearer token expected, Basic authentication failed", "Bearer token expected, Basic authentication failed"),
        ("sha256:0123456789abcdef", "sha256:0123456789abcdef"),
        ("cookie: none; key: value; a == b", "cookie: none; key: value; a == b"),
        ("mkdir -p /data", "mkdir -p /data"),
    ],
)
def test_passwords_give_themselves_away(text: str, masked: str) -> None:
    assert Redactor().text(text) == masked


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"DSN": "host=db password=dsn-55 dbname=x"}, "dsn-55"),
        ({"SPRING_DATASOURCE_URL": "jdbc:postgresql://db/x?user=u&password=jd%2Fbc"}, "jd/bc"),
        ({"AUTH_HEADER": "Bearer bear-77"}, "bear-77"),
        ({"AUTH_HEADER": "Basic " + base64.b64encode(b"u:basic-78").decode()}, "basic-78"),
        ({"NEO4J_AUTH": "neo4j/neo-79"}, "neo-79"),
        ({"FLOWER_BASIC_AUTH": "u:flower-80"}, "flower-80"),
        ({"STORAGE": "AccountName=x;AccountKey=azure44==;EndpointSuffix=x"}, "azure44=="),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=otel-81,a=b"}, "otel-81"),
        ({"GOOGLE": '{"type": "x", "private_key": "line-one\\nline-two"}'}, "line-two"),
        ({"POSTGRES_PASSWORD": "1234"}, "1234"),
        ({"ALLOWED": "x", "GIT_URL": "https://tok3n-0123456789abc@github.com"}, "tok3n-0123456789abc"),
    ],
)
def test_secrets_in_values_are_learnt(environment: dict[str, str], text: str) -> None:
    assert knowing(**environment).text(f"it was {text}, he said") == "it was ***, he said"


def test_a_short_number_is_a_setting() -> None:
    assert knowing(API_TOKEN="3600").text("after 3600 s") == "after 3600 s"


def test_a_path_is_a_place() -> None:
    text = "it read /certs/redis.key"
    assert knowing(REDIS_TLS_KEY="/certs/redis.key").text(text) == text


@pytest.mark.parametrize("before", ["", "u:", "user:", "a"])
def test_secrets_are_masked_as_they_look_when_encoded(before: str) -> None:
    secret = 'kR9"v/Xw2 é$x'
    redactor = knowing(secret)
    for shown in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret), secret.replace("$", "$$")):
        assert MASK in redactor.text(shown)
        assert "Xw2" not in redactor.text(shown), shown
    encoded = base64.b64encode(f"{before}{secret}{before}".encode()).decode()
    assert len(redactor.text(encoded)) <= len(encoded) - 12


def test_a_secret_that_the_end_of_a_text_cuts() -> None:
    redactor = knowing("kR9vXw2-postgres16", "database-2-abc")
    assert redactor.text("it ends in kR9vXw2-post") == "it ends in ***"
    assert redactor.text("it ends in database") == "it ends in database"


def test_lines_are_masked_together() -> None:
    assert knowing("from-a-file\n").lines(["it is from-a-file", "b"]) == ["it is ***", "b"]
    begin, end = "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"
    assert Redactor().lines(["a", begin, "MIIabc", end, "b"]) == ["a", f"{begin}***{end}", "b"]
    assert Redactor().lines([]) == []


def test_an_error_is_masked_where_it_has_something_from_elsewhere() -> None:
    mask = knowing(**SHOP).text
    failed = CommandFailed(["docker", "start", "shop"], 1, "shop will not start\n")
    assert message_of(failed, mask) == "`docker start shop` failed: *** will not ***"
    above = StackError(f"could not start shop: {failed}")
    above.__cause__ = failed
    assert message_of(above, mask) == "could not start shop: `docker start shop` failed: *** will not ***"
    assert message_of(StackError("start shop"), mask) == "start shop"
    assert mask_part("start: start", "", mask) == "start: start"


def _random(chance: random.Random, letters: str, least: int, most: int) -> str:
    return "".join(chance.choices(letters, k=chance.randint(least, most)))


@pytest.mark.parametrize("seed", range(30))
def test_no_strong_secret_leaves_and_all_names_stay(seed: int) -> None:
    """Whatever stands around them, and also if secrets are parts of names, or of each other."""
    chance = random.Random(seed)
    names = [
        "-".join(_random(chance, string.ascii_lowercase, 2, 6) for _ in range(chance.randint(1, 3))) for _ in range(20)
    ]
    words = [chance.choice(chance.choice(names).split("-")) for _ in range(10)]
    strong = [_random(chance, string.ascii_letters + string.digits + "+/=$%&@ -", 9, 40).strip("-") for _ in range(20)]
    strong = [each for each in strong if not looks_like_word(each.strip()) and len(each.strip()) >= 8]
    redactor = Redactor()
    redactor.add_environment({f"SECRET_{number}": each for number, each in enumerate((*strong, *words))})
    redactor.add_public(names)
    for _ in range(40):
        parts = [chance.choice((*names, *strong)) for _ in range(12)]
        glue = chance.choice((" ", "\n", ": ", ",", '"', " = ", " | "))
        for mask in (redactor.text, redactor.own_text):
            shown = mask(glue.join(parts))
            assert not [each for each in strong if each.strip() in shown], (parts, shown)
            assert mask(glue.join(names)) == glue.join(names)


def test_a_thousand_secrets_cost_little() -> None:
    """Each secret must not cost a walk of its own. (A log of 1 MB and 1,000 secrets take 0.4 s.)"""
    chance = random.Random(1)
    lines: list[str] = []
    secrets = [_random(chance, string.ascii_letters + string.digits, 16, 32) for _ in range(1000)]
    while sum(map(len, lines)) < 200_000:
        words = " ".join(_random(chance, string.ascii_lowercase, 2, 9) for _ in range(150))
        lines.append(f"10:00:00 INFO path=/api/v1 user=7 took: 12ms {words} {chance.choice(secrets)}")

    def cost(number: int) -> float:
        redactor = knowing(*secrets[:number], public=tuple(f"service-{index}" for index in range(200)))
        redactor.text("warm")
        began = time.process_time()
        for line in lines:
            redactor.text(line)
        return time.process_time() - began

    few, many = min(cost(10) for _ in range(2)), min(cost(1000) for _ in range(2))
    assert many < 5 * few, (few, many)


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
