/** The style of the HTML report: the system's fonts, its light or dark colours, and black on white when printed. */
export const REPORT_STYLE = `
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de; --panel: #f6f8fa;
  --good: #116329; --good-ground: #dafbe1; --bad: #a40e26; --bad-ground: #ffebe9; --note: #7d4e00; --note-ground: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3; --soft: #9aa5b1; --line: #30363d;
  --panel: #161b22; --good: #56d364; --good-ground: #12301d; --bad: #ff8e87; --bad-ground: #3d1417; --note: #e3b341;
  --note-ground: #33270b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem; }
header { padding: 1.25rem 1.5rem; border-left: .5rem solid; border-radius: .25rem; }
header.passed { background: var(--good-ground); border-color: var(--good); }
header.failed { background: var(--bad-ground); border-color: var(--bad); }
header h1 { margin: 0; font-size: 2.4rem; line-height: 1.2; }
header.passed h1 { color: var(--good); }
header.failed h1 { color: var(--bad); }
header .kind { margin: 0; color: var(--soft); }
header .answer { margin: .25rem 0 0; font-size: 1.15rem; overflow-wrap: anywhere; }
.points { margin-top: 1rem; }
.points caption { text-align: left; font-weight: 600; }
.points.alarm caption { color: var(--bad); }
.points.change caption { color: var(--note); }
.points td, .points th { padding: .25rem .6rem .25rem 0; border: 0; border-top: 1px solid var(--line); font-weight: 400; }
.points th { width: 19rem; font-weight: 600; }
.simulated { padding: .75rem 1.5rem; background: var(--note-ground); border-left: .5rem solid var(--note); border-radius: .25rem; }
h2 { margin: 0; font-size: 1.25rem; display: flex; gap: .6rem; align-items: center; }
h3 { margin: 0; font-size: 1rem; }
section { margin-top: 2rem; }
section.claim { border-top: 1px solid var(--line); padding-top: 1.25rem; break-inside: auto; }
.question { margin: .25rem 0 0; color: var(--soft); }
.summary { margin: .5rem 0 0; overflow-wrap: anywhere; }
.badge { display: inline-block; min-width: 4.6rem; padding: .1rem .5rem; border-radius: 1rem; border: 1px solid; font-size: .8rem;
  font-weight: 600; text-align: center; white-space: nowrap; }
.badge.passed { color: var(--good); background: var(--good-ground); }
.badge.failed { color: var(--bad); background: var(--bad-ground); }
.badge.warning, .badge.skipped { color: var(--note); background: var(--note-ground); }
table { width: 100%; border-collapse: collapse; margin-top: .75rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
.about th, .facts th { width: 13rem; font-weight: 600; }
.overview td:first-child { width: 7rem; }
.overview th[scope=row] { width: 13rem; font-weight: 600; }
article { margin-top: 1rem; padding: .9rem 1.1rem; background: var(--panel); border: 1px solid var(--line); border-radius: .35rem; }
section.failed article { border-left: .3rem solid var(--bad); }
article dl { display: grid; grid-template-columns: 6rem 1fr; gap: .25rem .75rem; margin: .6rem 0 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.findings td:first-child { width: 40%; }
.count, .errcode { margin-left: .4rem; color: var(--soft); font-weight: 400; font-size: .85rem; }
.rest { margin: .6rem 0 0; color: var(--soft); }
h3.facts { margin-top: 1rem; color: var(--soft); font-size: .85rem; }
table.facts { margin-top: .25rem; font-size: .85rem; }
table.facts th { color: var(--soft); }
code { font: .88em/1.45 ui-monospace, "DejaVu Sans Mono", monospace; unicode-bidi: isolate; }
a { color: inherit; }
footer { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { main { padding: .75rem; } .overview thead, .overview td:last-child { display: none; }
  .overview th[scope=row] { width: auto; } .about th, .facts th { width: 7rem; } article dl { grid-template-columns: 1fr; }
  .findings thead { display: none; } .findings td, .findings td:first-child { display: block; width: auto; border: 0; padding: .1rem 0; }
  .findings tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .findings td::before { content: attr(data-name); display: block; color: var(--soft); font-size: .8rem; } }
@media print { :root { color-scheme: light; --ground: #fff; --text: #000; --soft: #444; --line: #999; --panel: #fff; --good: #0a4d1f;
  --good-ground: #fff; --bad: #8a0a1e; --bad-ground: #fff; --note: #5c3a00; --note-ground: #fff; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } a { text-decoration: none; }
  h2, h3, thead, tr, header { break-inside: avoid; break-after: avoid-page; } tbody tr { break-after: auto; } }
`
