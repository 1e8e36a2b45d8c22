/** Bundle an entry into dist/: `node build.mjs src/main.ts`. */

import { build } from "esbuild";

await build({
  entryPoints: process.argv.slice(2),
  outdir: "dist",
  outbase: ".",
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  logLevel: "warning",
  preserveSymlinks: true, // the SDK and the contracts find what they need among this project's packages
  // The package `yaml` is CommonJS, and asks for Node's own modules by `require`.
  banner: { js: 'import { createRequire } from "node:module";\nconst require = createRequire(import.meta.url);' },
});
