/** Splits texts into words as they come, and counts them. Put your own work in its place. */

import { loadManifest } from "@mediamesh/agent";
import type { Agent, Run } from "@mediamesh/agent";

export class WordSplitter implements Agent {
  readonly manifest = loadManifest(new URL("../../manifest.yaml", import.meta.url));

  async process(run: Run): Promise<{ count: number }> {
    let count = 0;
    let rest = "";
    const give = async (words: string[]): Promise<void> => {
      for (const word of words.filter(Boolean)) {
        count += 1;
        await run.emit("words", run.params["loud"] === true ? word.toUpperCase() : word);
      }
    };
    for await (const { payload } of run.stream("text")) {
      if (payload.case !== "content") continue;
      const words = (rest + payload.value.text).split(/\s+/);
      rest = words.pop() ?? "";
      await give(words);
    }
    await give([rest]);
    return { count };
  }
}
