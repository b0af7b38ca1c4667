"""The Grafana dashboard is one that Grafana takes: the part of its JSON model that matters.

As https://grafana.com/docs/grafana/latest/dashboards/json-model/ and the model of its panels say.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

DASHBOARD = Path(__file__).parents[2] / "launch" / "monitoring" / "grafana_dashboard.json"
PANELS = {"row", "timeseries", "stat", "bargauge", "table"}
UNITS = {"short", "s", "bytes", "percent", "percentunit", "watt"}
BUILT_IN = {"__rate_interval"}
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def test_the_dashboard_has_the_fields_of_the_model(dashboard: dict[str, Any]) -> None:
    kinds = {
        "uid": str, "title": str, "tags": list, "timezone": str, "editable": bool,
        "graphTooltip": int, "panels": list, "time": dict, "timepicker": dict, "templating": dict,
        "annotations": dict, "refresh": str, "schemaVersion": int, "version": int, "links": list,
        "description": str,
    }  # fmt: skip
    assert {name: type(value) for name, value in dashboard.items()} == kinds
    assert re.fullmatch(r"[A-Za-z0-9_-]{8,40}", dashboard["uid"])
    assert dashboard["schemaVersion"] >= 30  # below that, panels and data sources look otherwise
    assert dashboard["graphTooltip"] in (0, 1, 2) and "id" not in dashboard
    assert dashboard["time"].keys() == {"from", "to"}
    assert re.fullmatch(r"\d+[smhd]", dashboard["refresh"])


def test_variables_are_queries_of_a_data_source_that_is_chosen(dashboard: dict[str, Any]) -> None:
    source, *variables = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource", "datasource", "prometheus",
    )  # fmt: skip
    known = {"datasource"}
    for variable in variables:
        assert variable["type"] == "query" and variable["datasource"] == PROMETHEUS
        query = variable["query"]["query"]
        assert re.fullmatch(r"label_values\(nakt_run_info(\{.*\})?, \w+\)", query)
        assert used_variables(query) <= known  # one that comes later would be empty
        known.add(variable["name"])
        assert variable["includeAll"] and variable["multi"] and variable["allValue"] == ".*"


def test_panels_are_of_known_kinds_and_lie_beside_each_other(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers) and all(type(number) is int for number in numbers)
    for panel in panels:
        assert panel["type"] in PANELS and panel["title"]
        place = panel["gridPos"]
        assert place.keys() == {"x", "y", "w", "h"} and min(place["x"], place["y"]) >= 0
        assert place["w"] >= 1 and place["h"] >= 1 and place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_panels_ask_prometheus_with_variables_that_exist(dashboard: dict[str, Any]) -> None:
    known = BUILT_IN | {each["name"] for each in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            assert panel["panels"] == [] and not panel["collapsed"] and "targets" not in panel
            continue
        assert panel["datasource"] == PROMETHEUS
        assert panel["fieldConfig"]["overrides"] == []
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        names = [target["refId"] for target in panel["targets"]]
        assert names == [*"ABCDEF"[: len(names)]] != []
        for target in panel["targets"]:
            assert target["datasource"] == PROMETHEUS
            assert used_variables(target["expr"]) <= known
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown or panel["type"] == "table" or target["legendFormat"]
            assert (panel["type"] == "table") == (target.get("format") == "table")


def used_variables(text: str) -> set[str]:
    return {name for name in re.findall(r"\$\{?(\w+)", text) if not name.isdigit()}
