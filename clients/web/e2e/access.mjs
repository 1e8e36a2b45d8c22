// Asks axe what a page withholds from people who do not see it, or see it differently (WCAG 2.2, A and AA).
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

/** Returns one line for each violation: its rule, what is wrong, and the first element. */
export async function withheld(page) {
  // Evaluated rather than loaded, since the page's policy lets no other script in.
  await page.evaluate(await readFile(AXE, "utf8"));
  const { violations } = await page.evaluate((rules) => globalThis.axe.run({ runOnly: rules }), RULES);
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0].html.slice(0, 160)} ${nodes[0].failureSummary ?? ""}`);
}
