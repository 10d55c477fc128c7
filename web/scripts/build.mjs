// Builds dist/voicepay-confirm.js, the one file that pages load and the service embeds; with a folder as its argument, there instead.

import { build } from "esbuild";

const folder = process.argv[2] ?? "dist";

await build({
  entryPoints: ["src/index.ts"],
  bundle: true,
  minify: true,
  format: "esm",
  // Private members (#x) natively: every browser whose WebRTC will do has them.
  target: ["es2022", "chrome94", "firefox93", "safari16.4"],
  // English and Chinese as they are: escapes would be longer.
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* voicepay-confirm. SPDX-License-Identifier: Apache-2.0. Built from web/src by `npm run build`. */" },
  outfile: `${folder}/voicepay-confirm.js`,
});
