// Builds the page into a temporary folder and fails when what is committed differs from it.
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = fileURLToPath(new URL("..", import.meta.url));
const committed = fileURLToPath(new URL("../../../generated/web", import.meta.url));
const fresh = await mkdtemp(join(tmpdir(), "mediamesh-web-"));
try {
  await build({ root, logLevel: "error", build: { outDir: fresh, emptyOutDir: true } });
  const names = new Set([...(await readdir(fresh)), ...(await readdir(committed).catch(() => []))]);
  const read = (folder, name) => readFile(join(folder, name)).catch(() => Buffer.from("not there"));
  const stale = [];
  for (const name of [...names].sort()) {
    if (!(await read(fresh, name)).equals(await read(committed, name))) stale.push(name);
  }
  if (stale.length > 0) {
    console.error(`generated/web is stale (${stale.join(", ")}); run "npm run build" in clients/web.`);
    process.exitCode = 1;
  }
} finally {
  await rm(fresh, { recursive: true, force: true });
}
