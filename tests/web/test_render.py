"""The environment: escaping, the macros' words, the formats, and data that a script element can hold."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import InvalidInput
from flyball.web import formats
from flyball.web.render import CONTENT_SECURITY_POLICY, NAVIGATION, environment, json_for_script, render, render_block

NOW = datetime(2013, 5, 3, 14, 30, tzinfo=UTC)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def written(source: str, **values: Any) -> str:
    loader = jinja2.DictLoader({"page": '{% import "macros.html" as m %}' + source})
    return render(environment(FixedClock(), loader), "page", **values).strip()


def test_the_policy_allows_nothing_inline_and_no_foreign_host() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "http" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; script-src 'self'; style-src 'self'")


def test_text_is_escaped_wherever_a_macro_puts_it() -> None:
    hostile = '<img src=x onerror="alert(1)">'
    page = written(
        "{{ m.state(x) }}{{ m.page_head(x, x) }}{{ m.code(x) }}{{ m.json({x: x}) }}{{ m.diff(x, x ~ 1) }}"
        '{{ m.facts([(x, x)]) }}{{ m.alert_banner("bad", x, x) }}{{ m.empty(x, x) }}{{ m.chart("line", x, {x: x}) }}'
        "{{ m.spark([1, 2], x) }}{{ m.number(1, x) }}",
        x=hostile,
    )
    assert "<img" not in page


def test_a_misspelt_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        written("{{ nmae }}")


def test_an_unknown_state_is_grey_and_not_green() -> None:
    assert 'class="state tone-unknown"' in written('{{ m.state("who knows") }}')
    assert 'class="state tone-unknown"' in written('{{ m.state("not checked") }}')
    assert 'class="state tone-warn"' in written('{{ m.state("Approval_needed") }}')


def test_a_reference_is_a_link_with_its_card() -> None:
    link = written('{{ m.ref("model/late@2") }}')
    assert 'href="/models/late/2" data-ref="model/late@2"' in link and "<span>late@2</span>" in link
    with pytest.raises(InvalidInput, match="is not a reference"):
        written('{{ m.ref("late") }}')


def test_a_missing_number_is_a_dash_and_says_why() -> None:
    assert 'title="not measured">–' in written("{{ m.number(none) }}{{ m.interval(none, none, none) }}")


def test_sorting_links_keep_the_filters_and_go_back_to_the_first_page() -> None:
    page = written(
        '{% call(row) m.table([{"id": "auc", "label": "AUC", "sort": true}], [1], sort="-auc", page=3, size=1, total=9,'
        ' url="/runs?tag=a%26b&sort=-auc&page=3") %}<td>{{ row }}</td>{% endcall %}'
    )
    assert 'href="/runs?tag=a%26b&amp;sort=auc"' in page and 'aria-sort="descending"' in page
    assert 'href="/runs?tag=a%26b&amp;sort=-auc&amp;page=4"' in page and "3–3 of 9" in page


def test_an_empty_table_says_what_belongs_there() -> None:
    page = written(
        '{% call(row) m.table([{"id": "a", "label": "A"}], [], nothing="Runs stand here.", line="fb.run()") %}'
        "{% endcall %}"
    )
    assert "Runs stand here." in page and "<code>fb.run()</code>" in page and "<table" not in page


def test_a_block_of_a_page_is_rendered_alone() -> None:
    pages = environment(FixedClock(), jinja2.DictLoader({"page": "a{% block rows %}{{ x }}{% endblock %}b"}))
    assert render_block(pages, "page", "rows", x="<") == "&lt;"
    with pytest.raises(InvalidInput, match='no block "row"; did you mean "rows"'):
        render_block(pages, "page", "row")


@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_in_a_script_element_is_read_back_and_never_ends_the_element(value: Any) -> None:
    text = str(json_for_script(value))
    assert "<" not in text and ">" not in text
    assert json.loads(text) == _without_nan(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.71234, "0.712"), (48210, "48,210"), (1234567.8, "1,230,000"), (-12.345, "−12.3"), (0.0, "0.00"),
        (0.9999, "1.00"), (99.96, "100"), (0.0000412, "4.12e-5"), (None, "–"), (math.nan, "–"), (math.inf, "∞"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert formats.number_text(value) == text


@given(st.floats(min_value=1e-4, max_value=1e12))
def test_a_number_is_never_off_by_more_than_half_of_its_third_digit(value: float) -> None:
    shown = float(formats.number_text(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=0.0051)


def test_an_interval_has_the_decimals_of_its_value() -> None:
    assert formats.interval_texts(0.71234, 0.7012, 0.72309) == ("0.712", "0.701", "0.723")
    assert formats.interval_texts(0.0, -0.021, 0.0219) == ("0.0000", "−0.0210", "0.0219")


@pytest.mark.parametrize(
    ("span", "text"),
    [(3, "just now"), (45, "45 s ago"), (200, "3 min ago"), (7300, "2 h ago"), (-7300, "in 2 h"),
     (86400 * 40, "40 d ago"), (86400 * 70, "2 mo ago"), (86400 * 800, "2 y ago")],
)  # fmt: skip
def test_times_are_relative(span: float, text: str) -> None:
    assert formats.relative_time(NOW - timedelta(seconds=span), NOW) == text


def test_spans_and_sizes_have_their_units() -> None:
    assert [formats.duration_text(s) for s in (0.0412, 8.2, 59.97, 250, 7500, 273_600, None)] == [
        "41.2 ms", "8.2 s", "1 min", "4 min 10 s", "2 h 5 min", "3 d 4 h", "–",
    ]  # fmt: skip
    assert [formats.bytes_text(b) for b in (812, 999_600, 4_124_011)] == ["812 B", "1 MB", "4.12 MB"]
    assert [formats.count_text(c) for c in (940, 48_210, 999_900, 1_230_000)] == ["940", "48.2k", "1M", "1.23M"]


def test_arms_keep_the_champions_colour() -> None:
    assert formats.arms(["late@2", "late@1", "late@3"], champion="late@2") == {"late@2": 0, "late@1": 1, "late@3": 2}


def test_a_spark_leaves_gaps_and_stays_in_its_box() -> None:
    assert formats.spark_path([1, None, 3, 2]) == "M0 22M66.67 2L100 12"
    assert formats.spark_path([None, math.nan]) == "" and formats.spark_path([5, 5]) == "M0 12L100 12"


def test_a_difference_of_specs_is_shown_as_their_yaml() -> None:
    lines = formats.diff_lines({"a": 1, "b": [1]}, {"a": 2, "b": [1]})
    assert lines == [("-", "a: 1"), ("+", "a: 2"), (" ", "b:"), (" ", "- 1")]
    assert formats.diff_lines({"a": 1}, {"a": 1}) == []


def test_every_destination_has_its_own_key_and_address() -> None:
    assert len({place.key for place in NAVIGATION}) == len({place.href for place in NAVIGATION}) == len(NAVIGATION)
