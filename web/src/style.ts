// How it looks. Colours are custom properties, so that an app can set its own; the ones here are held to WCAG's contrast by the browser tests.

const DARK = `
  --bg: var(--voicepay-background, #15191e); --ink: var(--voicepay-text, #eef1f4); --soft: var(--voicepay-text-soft, #aeb8c2);
  --line: #38424c; --edge: #8894a0; --well: #1f252c; --accent: var(--voicepay-accent, #8cc2ff); --on-accent: var(--voicepay-on-accent, #06213d);
  --good: #6fdca0; --bad: #ffa097; --wait: #f2c76e;
  color-scheme: dark;`;

export const STYLE = `
:host {
  --bg: var(--voicepay-background, #fff); --ink: var(--voicepay-text, #1a1d21); --soft: var(--voicepay-text-soft, #535e69);
  --line: #d5dbe1; --edge: #6f7b87; --well: #f2f5f8; --accent: var(--voicepay-accent, #0b5cad); --on-accent: var(--voicepay-on-accent, #fff);
  --good: #0a6b3d; --bad: #a3231b; --wait: #7a5200;
  color-scheme: light;
  display: block; max-inline-size: 26rem; font: 1rem/1.45 var(--voicepay-font, system-ui, sans-serif); color: var(--ink);
}
:host([hidden]), [hidden] { display: none !important; }
@media (prefers-color-scheme: dark) { :host(:not([theme="light"])) {${DARK} } }
:host([theme="dark"]) {${DARK} }
* { box-sizing: border-box; margin: 0; }
.card { background: var(--bg); border: 1px solid var(--line); border-radius: .75rem; padding: 1.25rem; overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
h2 { font-size: 1rem; font-weight: 600; color: var(--soft); margin-block-end: .75rem; }
dl { display: grid; gap: .25rem; }
dt { color: var(--soft); font-size: .875rem; }
dd { font-size: 1.125rem; font-weight: 600; margin-block-end: .25rem; }
dd.amount { font-size: 1.75rem; line-height: 1.2; }
.say { margin-block-start: .75rem; }
.say p { min-block-size: 1.45em; }
.say p:empty { min-block-size: 0; }
.turn { display: flex; align-items: center; gap: .6rem; font-size: 1.125rem; font-weight: 600; }
.turn:empty { display: none; }
.turn::before { content: ""; flex: none; inline-size: .75rem; block-size: .75rem; border-radius: 50%; border: 2px solid var(--edge); }
.card[data-state="listening"] .turn::before { background: var(--good); border-color: var(--good); }
.hint { color: var(--wait); margin-block-start: .5rem; }
.result { border-inline-start: .3rem solid var(--edge); padding-inline-start: .75rem; }
.result strong { display: block; font-size: 1.25rem; }
.result span { display: block; margin-block-start: .25rem; }
.card[data-tone="good"] .result { border-color: var(--good); } .card[data-tone="good"] .result strong { color: var(--good); }
.card[data-tone="bad"] .result { border-color: var(--bad); } .card[data-tone="bad"] .result strong { color: var(--bad); }
.card[data-tone="wait"] .result { border-color: var(--wait); } .card[data-tone="wait"] .result strong { color: var(--wait); }
.digits { margin-block-start: .75rem; padding: .6rem .75rem; background: var(--well); border-radius: .5rem; container-type: inline-size; }
.digits .label { color: var(--soft); font-size: .875rem; }
.digits .number { font-size: clamp(1.125rem, 8cqi, 2rem); line-height: 1.25; font-weight: 700; font-variant-numeric: tabular-nums; letter-spacing: .06em; }
.level { margin-block-start: .75rem; }
.level .label { color: var(--soft); font-size: .875rem; }
.meter { block-size: .75rem; border: 1px solid var(--edge); border-radius: .375rem; overflow: hidden; margin-block-start: .25rem; }
.bar { block-size: 100%; background: var(--good); transform-origin: 0 50%; transform: scaleX(var(--level, 0)); }
:host(:dir(rtl)) .bar { transform-origin: 100% 50%; }
.captions { margin-block-start: .75rem; max-block-size: 9rem; overflow-y: auto; border-block: 1px solid var(--line); padding-block: .4rem; overscroll-behavior: contain; }
.captions p { padding-block: .15rem; }
.captions .who { color: var(--soft); font-size: .875rem; }
details { margin-block-start: .75rem; }
summary { cursor: pointer; min-block-size: 2.75rem; display: list-item; padding-block: .6rem; color: var(--ink); }
.keys { display: grid; grid-template-columns: repeat(3, minmax(2.75rem, 1fr)); gap: .5rem; max-inline-size: 16rem; }
.actions { display: flex; flex-wrap: wrap; gap: .75rem; margin-block-start: 1rem; }
.actions:not(:has(button:not([hidden]))) { display: none; }
button { font: inherit; font-weight: 600; min-block-size: 2.75rem; min-inline-size: 2.75rem; padding: .5rem 1.25rem; border-radius: .5rem; border: 1px solid var(--edge); background: var(--bg); color: var(--ink); cursor: pointer; }
.keys button { padding-inline: .5rem; }
button.main { background: var(--accent); border-color: var(--accent); color: var(--on-accent); flex: 1 1 auto; }
button:hover { text-decoration: underline; }
@media (prefers-reduced-motion: no-preference) {
  .bar { transition: transform 60ms linear; }
  .card[data-state="listening"] .turn::before { animation: breathe 1.4s ease-in-out infinite; }
  @keyframes breathe { 50% { opacity: .35; } }
}
@media (forced-colors: active) {
  .bar, .card[data-state="listening"] .turn::before { forced-color-adjust: none; background: Highlight; border-color: Highlight; }
  .digits { border: 1px solid; }
}
`;
