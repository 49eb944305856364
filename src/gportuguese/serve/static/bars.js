// The most likely next tokens as bars; clicking one appends it.
import { describeToken, percent, say } from "./language.js";

const list = document.getElementById("bars");

export function drawBars(candidates, isBusy, onPick) {
  const largest = candidates[0]?.probability ?? 1;
  list.replaceChildren(
    ...candidates.map(({ name, probability }) => {
      const { shown, isText } = describeToken(name);
      const label = name.trim() || (name.includes("\n") ? say("newline") : shown);
      const bar = document.createElement("button");
      bar.type = "button";
      bar.disabled = !isText || isBusy;
      bar.classList.toggle("special", !isText);
      bar.style.setProperty("--share", probability / largest);
      const values = { token: isText ? label : shown, percent: percent(probability) };
      bar.setAttribute("aria-label", say("barLabel", values));
      bar.append(part("token", shown), part("track", ""), part("percent", values.percent));
      bar.addEventListener("click", () => onPick(name));
      const item = document.createElement("li");
      item.append(bar);
      return item;
    }),
  );
  setStale(isBusy);
}

export function setStale(isStale) {
  list.classList.toggle("stale", isStale);
}

function part(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}
