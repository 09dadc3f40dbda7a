"""The CloudWatch dashboard: its metrics, its widgets and its parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meibo_local.template import ROOT
from tests.support.template import Template

# Metrics of AWS services that the dashboard may contain, with the property that identifies the resource.
AWS_METRICS = {
    "AWS/States": ({"ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted", "ExecutionTime"}, "StateMachineArn"),
    "AWS/Lambda": ({"Duration", "Errors"}, "FunctionName"),
    "AWS/SQS": ({"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"}, "QueueName"),
}
# Each account has three dashboards with up to 50 metrics each for free: https://aws.amazon.com/cloudwatch/pricing/
MAX_FREE_METRICS = 50
GRID_COLUMNS = 24


@pytest.fixture(scope="module")
def widgets(template: Template) -> list[dict[str, Any]]:
    body: dict[str, Any] = json.loads(template.properties("Dashboard")["DashboardBody"])
    return list(body["widgets"])


def metrics(widgets: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    for widget in widgets:
        for namespace, name, dimension, value, _options in widget["properties"].get("metrics", ()):
            yield namespace, name, dimension, value


def test_every_alarm_is_on_the_dashboard(template: Template, widgets: list[dict[str, Any]]) -> None:
    (alarms,) = (widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm")

    assert sorted(alarms) == sorted(f"{alarm}.Arn" for alarm in template.of_type("AWS::CloudWatch::Alarm"))


def test_every_metric_exists(template: Template, widgets: list[dict[str, Any]]) -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "layers/meibo/meibo").rglob("*.py"))
    functions, queues = template.of_type("AWS::Lambda::Function"), template.of_type("AWS::SQS::Queue")
    resources = {
        "StateMachineArn": {"ExportWorkflow"},
        "FunctionName": set(functions),
        "QueueName": {f"{queue}.QueueName" for queue in queues},
    }

    for namespace, name, dimension, value in metrics(widgets):
        if namespace == "Meibo":
            assert f'"{name}"' in source
            assert (dimension, value) == ("service", "meibo")
        else:
            names, expected_dimension = AWS_METRICS[namespace]
            assert name in names
            assert dimension == expected_dimension
            assert value in resources[dimension]


def test_runs_rows_failures_ages_and_durations_are_shown(template: Template, widgets: list[dict[str, Any]]) -> None:
    shown = set(metrics(widgets))

    assert {name for _, name, _, _ in shown} >= {
        *("CompleteRuns", "ExecutionsFailed", "MissingExports", "ArchivedRows", "ArchivedBytes"),
        *("ApproximateAgeOfOldestMessage", "OldestReturnedChangeAge", "ExecutionTime"),
    }
    for name in ("Duration", "Errors"):
        functions = {value for _, metric, _, value in shown if metric == name}
        assert functions == set(template.of_type("AWS::Lambda::Function"))


def test_dashboard_is_free_in_an_account_with_few_dashboards(widgets: list[dict[str, Any]]) -> None:
    assert len(list(metrics(widgets))) <= MAX_FREE_METRICS


def test_widgets_fit_the_grid_and_do_not_overlap(widgets: list[dict[str, Any]]) -> None:
    cells = [
        (widget["x"] + column, widget["y"] + row)
        for widget in widgets
        for column in range(widget["width"])
        for row in range(widget["height"])
    ]

    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < GRID_COLUMNS


def test_dashboard_name_contains_the_region(template: Template) -> None:
    name = template.properties("Dashboard")["DashboardName"]

    assert name == "meibo-eu-central-1"
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name)


def test_dashboard_can_be_disabled(translate: Callable[..., Template]) -> None:
    assert translate(DashboardState="DISABLED").of_type("AWS::CloudWatch::Dashboard") == {}
