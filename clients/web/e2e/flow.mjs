// node flow.mjs BASE_URL FLOW INPUTS SCREENSHOT [dark] [WIDTH] [SOUND]: chooses a flow, gives its inputs, runs it, and
// prints what the page shows while it runs and at its end.
//
// INPUTS is JSON, `{"node.pin": "path"}`; `{"node.pin": 3}` records for three seconds from a microphone that plays the WAV
// file SOUND once. Pictures are taken of the recording, halfway and of the end: SCREENSHOT with `-recording`, `-live` or nothing.
import { withheld } from "./access.mjs";
import { drive } from "./browser.mjs";

const [baseUrl, flow, given, screenshot, scheme = "light", width = "1280", sound] = process.argv.slice(2);
const inputs = Object.entries(JSON.parse(given));
const picture = (name) => screenshot.replace(/(\.png)$/, `${name}$1`);
const MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];

await drive(
  async (page) => {
    await page.goto(`${baseUrl}#${flow}`);
    await page.locator("#graph [data-node]").first().waitFor();
    const fields = await page.locator(".field").evaluateAll((all) =>
      all.map((field) => ({
        key: field.dataset.field,
        kind: field.dataset.kind,
        accept: field.querySelector("input")?.accept,
        records: field.querySelector(".record") !== null,
      })),
    );
    const asked = await page.locator("#status").innerText();
    let meter = [];
    for (const [key, value] of inputs) {
      if (typeof value === "number") meter = await record(page, key, value);
      else await page.locator(`[data-field="${key}"] input`).setInputFiles(value);
    }
    const start = page.getByRole("button", { name: "Run", exact: true });
    if (await start.isVisible()) await start.click();
    const live = await watched(page);
    await page.waitForTimeout(700); // bars have grown and pictures are there by then
    const viewer = await replayed(page);
    await page.screenshot({ path: screenshot, fullPage: true });
    return { fields, asked, meter, live, viewer, ...(await shown(page)), withheld: await withheld(page) };
  },
  {
    colorScheme: scheme,
    viewport: { width: Number(width), height: 900 },
    args: sound ? [...MICROPHONE, `--use-file-for-fake-audio-capture=${sound}%noloop`] : MICROPHONE,
  },
);

/** Records for so many seconds and returns the loudness that was shown. */
async function record(page, key, seconds) {
  const field = page.locator(`[data-field="${key}"]`);
  await field.getByRole("button", { name: "Record", exact: true }).click();
  const meter = [];
  for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
    await page.waitForTimeout(100);
    meter.push(Number(await field.getByRole("meter").getAttribute("aria-valuenow")));
  }
  await page.screenshot({ path: picture("-recording"), fullPage: true });
  await field.getByRole("button", { name: "Stop" }).click();
  await page.locator(`[data-field="${key}"][data-state="shown"]`).waitFor();
  return meter;
}

/** Returns what the page showed until the run ended: the states of nodes, and how texts and boxes came. */
async function watched(page) {
  const seen = page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const began = performance.now();
        const states = {};
        const partial = [];
        let first;
        let most = 0;
        const look = () => {
          for (const { dataset } of document.querySelectorAll("#graph [data-node]")) {
            const of = (states[dataset.node] ??= []);
            if (of.at(-1) !== dataset.state) of.push(dataset.state);
          }
          for (const line of document.querySelectorAll('.speech [data-final="false"] p')) {
            if (partial.at(-1) !== line.textContent) partial.push(line.textContent);
          }
          if (document.body.dataset.run === "running" && document.querySelector(".sink")) first ??= performance.now() - began;
          most = Math.max(most, Number(document.querySelector(".stage")?.dataset.boxes ?? 0));
          if (["running", "none"].includes(document.body.dataset.run)) return;
          observer.disconnect();
          resolve({ states, partial, firstMs: first, mostBoxes: most });
        };
        const observer = new MutationObserver(look);
        observer.observe(document.body, { attributes: true, childList: true, subtree: true, characterData: true });
        setTimeout(() => reject(new Error(`The run did not end: ${JSON.stringify(states)}`)), 100_000);
        look();
      }),
  );
  await Promise.race([seen, page.waitForTimeout(1_500)]);
  await page.screenshot({ path: picture("-live"), fullPage: true });
  return seen;
}

/** Plays the video of a viewer from its beginning, and returns how many boxes are drawn and where the picture is. */
async function replayed(page) {
  if ((await page.locator(".stage video").count()) === 0) return null;
  return page.locator(".stage").evaluate(async (stage) => {
    const video = stage.querySelector("video");
    const wait = (event) => new Promise((resolve) => video.addEventListener(event, resolve, { once: true }));
    video.pause();
    const samples = [];
    for (const share of [0.2, 0.5, 0.8]) {
      const there = wait("seeked");
      video.currentTime = video.duration * share;
      await there;
      await new Promise((resolve) => setTimeout(resolve, 100));
      const canvas = stage.querySelector("canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let painted = 0;
      for (let at = 3; at < data.length; at += 4) painted += data[at] > 0 ? 1 : 0;
      samples.push({ time: video.currentTime, boxes: Number(stage.dataset.boxes), painted });
    }
    return { samples, duration: video.duration, now: stage.querySelector(".now").textContent, told: stage.querySelector(".told").textContent };
  });
}

async function shown(page) {
  const texts = (selector) => page.locator(selector).allInnerTexts();
  return {
    run: await page.locator("body").getAttribute("data-run"),
    shows: await page.locator(".sink").evaluateAll((all) => Object.fromEntries(all.map(({ dataset }) => [dataset.sink, dataset.shows]))),
    labels: await page.locator(".labels .label").evaluateAll((all) => all.map(({ title }) => title)),
    speech: (await texts('.speech [data-final="true"] p')).map((line) => line.trim()),
    combined: await page.locator(".combined li").evaluateAll((all) =>
      all.map((row) => ({ source: row.dataset.source, time: row.querySelector("time").textContent, what: row.querySelector(".what").textContent })),
    ),
    events: await texts("#events li"),
    edges: await page.locator("#graph .edge text").allTextContents(),
    alert: (await page.locator("#alert").isVisible()) ? await page.locator("#alert").innerText() : "",
    status: await page.locator("#status").innerText(),
    total: await page.locator("#total").innerText(),
    overflow: await page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
  };
}
