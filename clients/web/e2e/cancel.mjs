// node cancel.mjs BASE_URL PHOTO: cancels a run once its classifier is under way, and prints how the run ended.
import { drive } from "./browser.mjs";

const [baseUrl, file] = process.argv.slice(2);

await drive(async (page) => {
  await page.goto(baseUrl);
  await page.locator(".field input").setInputFiles(file);
  await page.locator('#graph [data-node="classify"][data-state="running"]').waitFor().catch(async (thrown) => {
    throw new Error(`The page says: ${await page.locator("main").innerText()}`, { cause: thrown });
  });
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.waitForFunction(() => document.body.dataset.run !== "running");
  return {
    run: await page.locator("body").getAttribute("data-run"),
    classify: await page.locator('#graph [data-node="classify"]').getAttribute("data-state"),
    status: await page.locator("#status").innerText(),
    events: await page.locator("#events li").allInnerTexts(),
    alert: await page.locator("#alert").innerText(),
    again: await page.getByRole("button", { name: "Run again" }).isVisible(),
  };
});
