// What is shipped: the built file is what the source builds, small enough, importable without a browser; nothing names a registry.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const BUILT = "dist/voicepay-confirm.js";

test("the committed file is what the source builds: else run `npm run build`", () => {
  const run = spawnSync(process.execPath, ["scripts/build.mjs", ".build/fresh"], { encoding: "utf8" });
  assert.equal(run.status, 0, run.stderr);
  assert.ok(readFileSync(BUILT, "utf8") === readFileSync(".build/fresh/voicepay-confirm.js", "utf8"));
});

test("it is 30 kB gzipped at most", () => {
  const size = gzipSync(readFileSync(BUILT), { level: 9 }).length;
  assert.ok(size <= 30_000, `${size} bytes`);
});

test("it reads no HTML, evaluates no text and writes to no console", () => {
  const built = readFileSync(BUILT, "utf8");
  for (const word of ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "console."]) assert.ok(!built.includes(word), word);
});

test("it can be imported where there are no elements", async () => {
  const module: unknown = await import(new URL(`../../${BUILT}`, import.meta.url).href);
  assert.ok(typeof module === "object" && module !== null && "VoicepayConfirm" in module);
});

test("the lock file names no registry", () => {
  assert.ok(!/https?:|"resolved"/.test(readFileSync("package-lock.json", "utf8")));
});
