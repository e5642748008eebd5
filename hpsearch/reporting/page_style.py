"""How the report page looks, in a light and a dark scheme."""

CSS = """
:root { color-scheme: light dark; --bg: #ffffff; --ink: #1f2329; --muted: #5d656e; --line: #e3e6ea;
  --soft: #f5f7f9; --accent: #1f6fb2; --good: #e8f2fb; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --ink: #e8eaed; --muted: #9aa3ad;
  --line: #2b3138; --soft: #1b1f24; --accent: #6db3f2; --good: #17293a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 48px 0 12px; }
p { margin: 0 0 12px; max-width: 88ch; }
.lead, .note, figcaption { color: var(--muted); }
.note, figcaption { font-size: 14px; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr));
  margin: 26px 0 0; padding: 0; }
.tiles div { background: var(--soft); border-radius: 10px; padding: 14px 16px; }
.tiles dt { font-size: 13px; color: var(--muted); }
.tiles dd { margin: 2px 0 0; font-size: 25px; font-weight: 600; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles small { display: block; font-size: 13px; font-weight: 400; color: var(--muted); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 10px; text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--muted); font-size: 13px; vertical-align: bottom; }
thead th { white-space: normal; hyphens: manual; border-bottom: 1px solid var(--line);
  background: var(--soft); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { color: var(--ink); font-size: 14px; vertical-align: middle; }
td.text, th.text { text-align: left; }
td.wide { white-space: normal; min-width: 22em; }
tr.first { background: var(--good); }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 7px; }
.narrow { max-width: 720px; margin-bottom: 8px; }
details { margin: 14px 0 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; padding: 4px 0; }
figure { margin: 26px 0 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: 6px; max-width: 85ch; }
dl.next { margin: 0; }
dl.next dt { margin-top: 12px; color: var(--muted); font-size: 14px; }
dl.next dd { margin: 4px 0 0; }
pre { margin: 0; background: var(--soft); border-radius: 8px; padding: 10px 14px; overflow-x: auto;
  font: 14px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--line);
  color: var(--muted); font-size: 13px; }
@media print { details > * { display: block; } .scroll { overflow: visible; } }
"""
