"""The documents' alerts are the Helm chart's."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "charts" / "cir-vectorizer" / "templates" / "prometheusrule.yaml").read_text()
VALUES = yaml.safe_load((ROOT / "charts" / "cir-vectorizer" / "values.yaml").read_text())["metrics"]["prometheusRule"]


def test_the_documents_alerts_are_the_charts():
    document = (ROOT / "docs" / "metrics.md").read_text()
    written = yaml.safe_load(re.search(r"## Alerts.*?```yaml\n(.*?)```", document, re.DOTALL)[1])["groups"][0]["rules"]
    rules = re.findall(r"- alert: (\w+)\n\s+expr: (.*)\n\s+for: (\w+)", TEMPLATE)
    assert len(rules) > 5
    assert [(rule["alert"], rule["expr"], rule["for"]) for rule in written] == [
        (name, plain(expression), duration) for name, expression, duration in rules
    ]


def plain(expression: str) -> str:
    """Return an expression of the chart without the labels of its release, and with its default values."""
    expression = expression.replace("{ {{- $of -}} }", "").replace("{ {{- $of }},", "{")
    return re.sub(r"\{\{ \$rule\.(\w+) \}\}", lambda match: str(VALUES[match[1]]), expression)
