"""`demo-out/report.html`: the result as one page that needs nothing else."""

from __future__ import annotations

import html
import time
from pathlib import Path

from plots import plot_accuracy, plot_latency, plot_size
from result import DemoResult, RolloutOutcome
from table import COLUMNS, row_of, show_comparison

STYLE = """
:root { color-scheme: light dark; --line: #8886; --good: #0a7d4f; --bad: #b3261e; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }
td { white-space: pre-line; } th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line); }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
tr.chosen td { font-weight: 600; color: var(--good); }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
.scroll { overflow-x: auto; } .ok { color: var(--good); } .bad { color: var(--bad); }
"""


def write_report(result: DemoResult, path: Path) -> None:
    """Write the page."""
    path.write_text(_page(result), encoding="utf-8")


def _page(result: DemoResult) -> str:
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.started_at))
    verdict = '<b class="ok">ok</b>' if result.is_ok else '<b class="bad">failed</b>'
    failures = "".join(f"<li>{html.escape(text)}</li>" for text in result.failures)
    plots = "".join(
        f"<figure>{plot_latency(result, name)}</figure><figure>{plot_accuracy(result, name)}</figure>"
        for name in result.device_classes
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Trimtab demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body>
<h1>Trimtab demo: {verdict}</h1>
<p>{when}, {result.duration_s:.0f} s, broker {html.escape(result.broker)}. Every figure below was measured
by an agent on its device class; an absent one says why.</p>
<ul class="bad">{failures}</ul>
<h2>The budget</h2>{_budgets(result)}
<h2>Size</h2><figure>{plot_size(result)}</figure>
<h2>Latency and accuracy</h2>{plots}
<h2>What the devices measured</h2><div class="scroll">{_table(result)}</div>
<h2>Why there is no energy figure, where there is none</h2>{_energy(result)}
<h2>Rollouts</h2>{"".join(_rollout(key, row) for key, row in result.rollouts.items())}
<h2>Conditions</h2>{_conditions(result)}
</body></html>
"""


def _budgets(result: DemoResult) -> str:
    rows = "".join(
        f"<li>{html.escape(name)}: "
        + ", ".join(f"{metric.value} ≤ {limit:.6g}" for metric, limit in budget.limits.items())
        + "</li>"
        for name, budget in result.budgets.items()
    )
    return f"<ul>{rows}</ul>"


def _table(result: DemoResult) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    rows = []
    for candidate in result.candidates:
        for one in candidate.classes:
            cells = "".join(f"<td>{html.escape(text)}</td>" for text in row_of(candidate, one))
            kind = ' class="chosen"' if candidate.is_chosen else ""
            rows.append(f'<tr{kind} title="{html.escape(one.verdict.reason)}">{cells}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _energy(result: DemoResult) -> str:
    reasons = {
        one.measurement.energy.per_inference_mj.absent
        for row in result.candidates
        for one in row.classes
        if one.measurement is not None and one.measurement.energy.per_inference_mj.absent
    }
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in sorted(reasons)) + "</ul>"


def _rollout(key: str, row: RolloutOutcome) -> str:
    code = f", <code>{row.error_code.value}</code>" if row.error_code else ""
    devices = "".join(
        f"<li>{html.escape(one.device)}: {html.escape(one.state)}, afterwards it runs "
        f"{html.escape(str(one.active))}. {html.escape(show_comparison(one))}</li>"
        for one in row.devices
    )
    return (
        f"<h3>{html.escape(key)}: {html.escape(row.what)}</h3><p>{html.escape(str(row.artifact))}: "
        f"<b>{row.state.value}</b>{code}. {html.escape(row.reason)}</p><ul>{devices}</ul>"
    )


def _conditions(result: DemoResult) -> str:
    items = []
    for one in result.fp32.classes:
        if one.measurement is None:
            continue
        c = one.measurement.condition
        text = (
            f"{one.device_class}: {c.cpu or c.board}, kernel {c.kernel}, {c.runtime_package} "
            f"{c.runtime_version}, {c.threads} thread(s), spinning {c.is_spinning_allowed}, "
            f"governor {c.governor_name or 'unknown'}"
        )
        items.append(f"<li>{html.escape(text)}</li>")
    return f"<ul>{''.join(items)}</ul>"
