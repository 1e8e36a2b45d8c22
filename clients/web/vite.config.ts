import { createServer, type Connect, type Plugin } from "vite";
import { defineConfig } from "vitest/config";

type Handle = (...of: Parameters<Connect.NextHandleFunction>) => Promise<void>;

/** Answers the page's calls in place of a mesh, so that the page can be worked on by itself (`--mode fake`). */
function fakeMesh(): Plugin {
  const answer: Connect.NextHandleFunction = (request, response, next) => {
    if (request.method !== "POST") return next();
    loader()
      .then((server) => server.ssrLoadModule("/test/fake_mesh.ts"))
      .then((loaded) => (loaded as { handle: Handle }).handle(request, response, next))
      .catch(next);
  };
  return {
    name: "fake-mesh",
    configureServer: ({ middlewares }) => void middlewares.use(answer),
    configurePreviewServer: ({ middlewares }) => void middlewares.use(answer),
  };
}

let opened: ReturnType<typeof createServer> | undefined;
function loader() {
  return (opened ??= createServer({
    configFile: false,
    appType: "custom",
    resolve: { preserveSymlinks: true },
    server: { middlewareMode: true, hmr: false, watch: null },
    ssr: { noExternal: [/^@mediamesh\//] },
    optimizeDeps: { noDiscovery: true },
  }));
}

const MESH = process.env["MEDIAMESH_URL"] ?? "http://127.0.0.1:8080";
const proxied = { target: MESH, changeOrigin: false };

export default defineConfig(({ mode }) => ({
  base: "./",
  plugins: mode === "fake" ? [fakeMesh()] : [],
  resolve: { preserveSymlinks: true }, // the contracts find their dependencies in this project's node_modules
  server: { fs: { allow: ["../.."] }, proxy: mode === "fake" ? {} : { "^/(v1/|mediamesh\\.api\\.).*": proxied } },
  build: {
    outDir: "../../generated/web",
    emptyOutDir: true,
    target: "es2023",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: true,
    // Names without hashes: what is served is committed, and a diff of it should show what changed.
    rolldownOptions: {
      output: {
        entryFileNames: "app.js",
        assetFileNames: ({ names: [name = ""] }) => (name.endsWith(".css") ? "style.css" : "[name][extname]"),
        codeSplitting: false,
      },
    },
  },
  test: { include: ["test/**/*.test.ts"], server: { deps: { inline: [/@mediamesh/] } } },
}));
