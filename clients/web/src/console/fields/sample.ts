import PHOTO from "../../../../examples/media/cat.jpg";
import { html } from "../element.js";

/** Returns a button that gives a photo which comes with the page. */
export function sampleButton(give: (file: File) => void): HTMLButtonElement {
  const button = html("button", { type: "button", class: "link sample" }, "Try a sample photo");
  button.addEventListener("click", async () => {
    button.disabled = true;
    const answer = await fetch(PHOTO).catch(() => undefined);
    if (answer?.ok) give(new File([await answer.blob()], "cat.jpg", { type: "image/jpeg" }));
    else button.textContent = "The sample cannot be read";
    button.disabled = false;
  });
  return button;
}
