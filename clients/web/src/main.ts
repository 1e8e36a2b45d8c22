import { Console } from "./console/console.js";

new Console(location.origin).open();
