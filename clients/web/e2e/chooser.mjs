// node chooser.mjs BASE_URL FILE: chooses every flow that the page offers, then opens one of the user's own, then asks for a
// microphone that the browser does not give; prints what the page shows of each.
import { withheld } from "./access.mjs";
import { drive } from "./browser.mjs";

const [baseUrl, file] = process.argv.slice(2);

await drive(async (page) => {
  await page.goto(baseUrl);
  const flows = [];
  for (const name of await page.locator("#chooser a").allInnerTexts()) {
    await page.getByRole("link", { name }).click();
    await opened(page, name);
    flows.push({ ...(await shown(page)), withheld: await withheld(page) });
  }
  await page.getByRole("button", { name: "Record", exact: true }).click();
  await page.locator("#alert").waitFor();
  const refused = await page.locator("#alert").innerText();

  await page.locator("#chooser input").setInputFiles(file);
  await page.locator("#alert li").first().waitFor();
  const own = { ...(await shown(page)), issues: await page.locator("#alert li").allInnerTexts() };
  await page.goBack();
  await opened(page, flows.at(-1).chosen);
  return { flows, refused, own, back: await shown(page) };
});

/** Waits for the fields of a flow; those of the one before are there until the page has heard of the new address. */
async function opened(page, name) {
  await page.waitForFunction((wanted) => document.querySelector("#chooser [aria-current]")?.textContent === wanted, name);
  await page.locator(".field").first().waitFor();
}

async function shown(page) {
  return {
    hash: new URL(page.url()).hash,
    title: await page.locator("h1").innerText(),
    chosen: await page.locator("#chooser [aria-current]").innerText(),
    fields: await page.locator(".field").evaluateAll((all) => all.map(({ dataset }) => `${dataset.field} ${dataset.kind}`)),
    runnable: await page.locator("#start").isEnabled(),
    asked: await page.locator("#status").innerText(),
  };
}
