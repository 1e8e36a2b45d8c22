// What the scripts beside this one share: a real Chromium, and one line of JSON as their answer.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Opens the browser that MEDIAMESH_CHROMIUM names, calls `visit` with a page, and prints what it returns as JSON. */
export async function drive(visit, options = {}) {
  const profile = await mkdtemp(join(tmpdir(), "mediamesh-chromium-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.MEDIAMESH_CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    ...options,
    args: [...FLAGS, ...(options.args ?? [])],
  });
  try {
    const page = await browser.newPage();
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("request", (request) => {
      const { protocol, origin } = new URL(request.url());
      if (protocol.startsWith("http") && origin !== new URL(page.url()).origin && page.url() !== "about:blank") {
        complaints.push(`asks another origin: ${request.url()}`);
      }
    });
    console.log(JSON.stringify({ ...(await visit(page)), complaints }));
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}
