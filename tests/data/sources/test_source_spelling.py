"""What a Source may say: one place, known options, no secret in clear, nor in any message."""

from __future__ import annotations

from typing import Any

import pytest

from flyball import plugins
from flyball.data.kinds import Source
from flyball.data.sources import read_source
from flyball.data.sources._locations import Environment, shown
from flyball.errors import InvalidInput
from flyball.ledger.kinds import validate

PASSWORD = "open-sesame"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "exactly one of files, sql, url, delta, topic; it has none"),
        ({"files": "x.csv", "url": "http://h/x"}, "it has files, url"),
        ({"files": " "}, "files is empty"),
        ({"fils": "x.csv"}, 'unknown field "source.fils"; did you mean "files"'),
        ({"files": "x", "options": {"encodin": "y"}}, 'unknown option "encodin"; did you mean "encoding"'),
        ({"sql": "postgresql://h/x"}, "a table or a query, and not both"),
        ({"sql": "x.db", "table": "t"}, "names no kind of database"),
        ({"files": "x", "table": "t"}, "table and query belong to sql"),
        ({"sql": "sqlite:x", "table": "t", "parameters": {"a": 1}}, "there is none"),
        ({"url": "ftp://h/x.csv"}, "must begin with http:// or https://"),
        ({"topic": "flights"}, "must be written kafka://host:port/topic"),
        ({"files": "x", "lag": "1h"}, "there is none"),
        ({"files": "x", "watermark": "a", "lag": "soon"}, "'soon' is not a duration"),
        ({"topic": "kafka://h/t", "watermark": "a"}, "goes on by itself"),
        ({"delta": "x", "format": "csv"}, "format belongs to files and urls"),
        ({"sql": f"postgresql://ann:{PASSWORD}@h/x", "table": "t"}, "sql holds a password; write ${NAME}"),
        ({"sql": f"postgresql://h/x?password={PASSWORD}", "table": "t"}, 'a secret, its "password"'),
        ({"url": f"http://h/x.csv?api_key={PASSWORD}"}, 'a secret, its "api_key"'),
        (
            {"url": "http://h/x", "options": {"headers": {"Authorization": PASSWORD}}},
            "headers.Authorization is a secret",
        ),
        (
            {"topic": "kafka://h/t", "options": {"client": {"sasl.password": PASSWORD}}},
            "client.sasl.password is a secret",
        ),
    ],
)
def test_a_wrong_source_is_refused_when_it_is_applied_and_its_secret_not_shown(
    source: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate("dataset", "flights", {"source": source})
    assert says in str(caught.value) and PASSWORD not in str(caught.value)
    if "fils" not in source:
        with pytest.raises(ValueError) as plain:
            Source.model_validate(source)
        assert PASSWORD not in str(plain.value)


def test_secrets_come_from_the_environment_and_are_taken_out_of_messages() -> None:
    spec = Source(sql="postgresql://ann:${PW}@127.0.0.1:1/x", table="t", options={"timeout_s": 2})
    environment = Environment({"PW": PASSWORD})
    assert environment.filled({"a": ["${PW}!"]}) == {"a": [PASSWORD + "!"]}
    assert environment.reason(ValueError(f"no {PASSWORD} here")) == "no *** here"
    assert shown("postgresql://ann:x@h/y?sslkey=z") == "postgresql://ann:***@h/y"
    with pytest.raises(InvalidInput, match=r"names \$\{PASWORD\}.*did you mean \"PASSWORD\""):
        Environment({"PASSWORD": PASSWORD}).filled("${PASWORD}")
    with pytest.raises(InvalidInput, match='no source of the kind "mysql"'):
        read_source(Source(sql="mysql://h/x", table="t"))
    assert PASSWORD not in repr(spec)


def test_every_kind_of_source_has_its_two_functions() -> None:
    names = plugins.names("flyball.data.sources")
    assert names == ["delta", "files", "http", "kafka", "postgresql", "s3", "sqlite"]
    for name in names:
        module = plugins.find("flyball.data.sources", name)
        assert callable(module.read) and callable(module.look) and module.__doc__
