import { main } from "@mediamesh/agent";

import { WordSplitter } from "./agent.js";

await main(new WordSplitter());
