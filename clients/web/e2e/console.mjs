// node console.mjs BASE_URL FILE SCREENSHOT [dark] [WIDTH]: gives the console a file and prints what it shows.
import { withheld } from "./access.mjs";
import { drive } from "./browser.mjs";

const [baseUrl, file, screenshot, scheme = "light", width = "1180"] = process.argv.slice(2);

await drive(
  async (page) => {
    await page.goto(baseUrl);
    await page.locator("#graph [data-node]").first().waitFor();
    const drawn = await nodes(page);
    if (file === "sample") await page.getByRole("button", { name: "Try a sample photo" }).click();
    else await page.locator(".field input").setInputFiles(file);
    const lit = await watched(page);
    await page.waitForTimeout(700); // the bars have grown by then
    await page.screenshot({ path: screenshot, fullPage: true });
    return {
      drawn,
      lit,
      run: await page.locator("body").getAttribute("data-run"),
      states: Object.fromEntries((await nodes(page)).map(({ node, state }) => [node, state])),
      labels: await page.locator(".labels li").evaluateAll((rows) =>
        rows.map((row) => ({
          label: row.querySelector(".label").title,
          percent: row.querySelector(".percent").textContent,
          width: row.querySelector(".bar i").getBoundingClientRect().width,
        })),
      ),
      events: await page.locator("#events li").allInnerTexts(),
      alert: (await page.locator("#alert").isVisible()) ? await page.locator("#alert").innerText() : "",
      status: await page.locator("#status").innerText(),
      total: await page.locator("#total").innerText(),
      events_url: await page.locator("#log").getAttribute("href"),
      picture: await page.locator(".field").getAttribute("data-state"),
      withheld: await withheld(page),
      overflow: await page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
    };
  },
  { colorScheme: scheme, viewport: { width: Number(width), height: 900 } },
);

function nodes(page) {
  return page.locator("#graph [data-node]").evaluateAll((boxes) => boxes.map(({ dataset }) => ({ ...dataset })));
}

/** Returns every state that each node went through until the run ended. */
function watched(page) {
  return page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const seen = {};
        const look = () => {
          for (const { dataset } of document.querySelectorAll("#graph [data-node]")) {
            const states = (seen[dataset.node] ??= []);
            if (states.at(-1) !== dataset.state) states.push(dataset.state);
          }
          if (!["running", "none"].includes(document.body.dataset.run)) {
            observer.disconnect();
            resolve(seen);
          }
        };
        const observer = new MutationObserver(look);
        observer.observe(document.body, { attributes: true, childList: true, subtree: true });
        setTimeout(() => reject(new Error(`The run did not end: ${JSON.stringify(seen)}`)), 45_000);
        look();
      }),
  );
}
