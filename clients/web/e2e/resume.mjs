// node resume.mjs BASE_URL PHOTO: runs the flow on a photo, reads the events of the run again with EventSource, whose
// connection is cut after some of them, and prints what came in all.
import { createServer, connect } from "node:net";
import { drive } from "./browser.mjs";

const [baseUrl, file] = process.argv.slice(2);
const door = new URL(baseUrl);

// A relay stands between browser and mesh: it lets three events of the first stream through, cuts it off once the page
// has seen them, as networks do, and notes what the browser asks for when it comes back.
const asked = [];
let cut = () => {};
const relay = createServer((down) => {
  const up = connect({ host: door.hostname, port: Number(door.port) });
  let events = false;
  let after;
  down.on("data", (bytes) => {
    const head = bytes.toString("latin1");
    if (/^GET \/v1\/executions\/[^ ]+\/events /.test(head)) {
      events = true;
      after = /^last-event-id: *(\d+)/im.exec(head)?.[1] ?? "";
    }
    up.write(bytes);
  });
  let seen = "";
  up.on("data", (bytes) => {
    // Noted once it is answered: what a browser asks on a connection that has just been closed, it asks again by itself.
    if (after !== undefined) asked.push(after);
    after = undefined;
    const before = seen.length;
    seen += bytes.toString("latin1");
    const third = events && asked.length === 1 ? seen.search(/^id: ?3$/m) : -1;
    const end = third < 0 ? -1 : seen.indexOf("\n\n", third);
    if (end < 0) return down.write(bytes);
    up.pause();
    cut = () => {
      down.end();
      up.destroy();
    };
    return down.write(bytes.subarray(0, end + 2 - before));
  });
  for (const [one, other] of [
    [down, up],
    [up, down],
  ]) {
    one.on("error", () => other.destroySoon());
    one.on("close", () => other.destroySoon());
  }
});
await new Promise((resolve) => relay.listen(0, "127.0.0.1", resolve));

try {
  await drive(async (page) => {
    await page.exposeFunction("hasSeen", (id) => {
      if (id === 3) cut();
    });
    const address = `http://127.0.0.1:${relay.address().port}/`;
    await page.goto(address);
    await page.locator(".field input").setInputFiles(file);
    await page.locator("#log").waitFor();
    const path = await page.locator("#log").getAttribute("href");
    return { ...(await page.evaluate(read, path)), asked };
  });
} finally {
  relay.close();
}

/** Runs in the page. */
function read(path) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(path);
    const result = { ids: [], kinds: [], opens: 0, breaks: 0 };
    const kinds = ["execution_started", "node_started", "node_progress", "node_output", "node_finished", "execution_finished"];
    source.onopen = () => (result.opens += 1);
    source.onerror = () => (result.breaks += 1);
    for (const kind of kinds) {
      source.addEventListener(kind, (event) => {
        result.ids.push(Number(event.lastEventId));
        result.kinds.push(kind);
        globalThis.hasSeen(Number(event.lastEventId));
        if (kind !== "execution_finished") return;
        source.close();
        resolve(result);
      });
    }
    setTimeout(() => reject(new Error(`No last event: ${JSON.stringify(result)}`)), 30_000);
  });
}
