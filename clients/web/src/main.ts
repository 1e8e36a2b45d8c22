import { Console } from "./console/console.js";

void new Console(location.origin).open();
