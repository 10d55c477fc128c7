// Runs the tests of one folder of test/ with node's own runner: `node scripts/test.mjs unit|browser|service [NAME…]`. They are TypeScript, so esbuild goes first.

import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const [kind = "unit", ...names] = process.argv.slice(2);
const out = `.build/${kind}`;
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });

// Browsers load what is built; what is committed is compared with it by a unit test.
if (kind !== "unit") spawnSync(process.execPath, ["scripts/build.mjs", ".build/dist"], { stdio: "inherit" });

const wanted = readdirSync(`test/${kind}`).filter((file) => file.endsWith(".test.ts") && (names.length === 0 || names.some((name) => file.includes(name))));
if (wanted.length === 0) throw new Error(`no test in test/${kind} has ${names.join(" or ")} in its name`);
await build({
  entryPoints: wanted.map((file) => `test/${kind}/${file}`),
  bundle: true,
  packages: "external",
  platform: "node",
  format: "esm",
  target: "node20",
  sourcemap: "inline",
  outdir: out,
});

const files = wanted.map((file) => `${out}/${file.replace(/\.ts$/, ".js")}`);
/** @param {string[]} some */
const run = (some) => spawnSync(process.execPath, ["--enable-source-maps", "--test", "--test-reporter=spec", ...some], { stdio: "inherit" }).status ?? 1;
// Browsers one at a time: on two cores, sound that stutters would be the machine's fault. Node sorts what it is given; impostors come last.
/** @param {string} file */
const last = (file) => Number(file.includes("impostors"));
const groups = kind === "unit" ? [files] : files.sort((a, b) => last(a) - last(b)).map((file) => [file]);
const failed = groups.map(run).filter((status) => status !== 0);
process.exit(failed[0] ?? 0);
