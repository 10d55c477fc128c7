// Fails when what pages load grew past its bound.

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_BYTES = 30_000;

const size = gzipSync(readFileSync("dist/voicepay-confirm.js"), { level: 9 }).length;
console.log(`dist/voicepay-confirm.js: ${size} bytes gzipped, ${LIMIT_BYTES} allowed`);
if (size > LIMIT_BYTES) process.exit(1);
