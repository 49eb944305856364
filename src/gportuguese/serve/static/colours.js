// Every token of the text coloured by its probability, and in words for the one at the cursor.
import { score } from "./api.js";
import { describeToken, percent, say } from "./language.js";
import { area, colour } from "./text.js";

const button = document.getElementById("colours");
const LEAST = [0.01, 0.1, 0.5]; // below the first: p0, from the last on: p3

let asking = null;
let scored = { text: null, tokens: [] };

export function isOn() {
  return button.getAttribute("aria-pressed") === "true";
}

export function toggle() {
  button.setAttribute("aria-pressed", String(!isOn()));
  document.getElementById("legend").hidden = !isOn();
  if (!isOn()) colour(null, []);
}

export async function update(context) {
  asking?.abort();
  if (!isOn()) return;
  asking = new AbortController();
  const text = area.value;
  scored = { text, tokens: await score(text, context, asking.signal) };
  if (!isOn()) return;
  const spans = scored.tokens.map(({ start, end, probability }) => ({
    start,
    end,
    className: `p${LEAST.filter((least) => probability >= least).length}`,
  }));
  colour(text, spans);
  describeCaret();
}

export function describeCaret() {
  if (!isOn() || scored.text !== area.value) return;
  const caret = area.selectionStart;
  const token = scored.tokens.find(({ start, end }) => start <= caret && caret < end);
  document.getElementById("at").textContent = !token
    ? say("atStart")
    : say("atCaret", {
        token: describeToken(area.value.slice(token.start, token.end)).shown,
        percent: percent(token.probability),
        best: describeToken(token.best).shown,
        bestPercent: percent(token.bestProbability),
      });
}
