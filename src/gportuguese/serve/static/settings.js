// The sliders, the seed and the theme: read, kept and restored.
import { number } from "./language.js";
import { keep, recall } from "./state.js";

const MAX_RANDOM_SEED = 1_000_000; // short enough to be typed

const seed = document.getElementById("seed");
const sliders = document.querySelectorAll("input[type=range]");

export function settings() {
  return Object.fromEntries([...sliders].map((slider) => [slider.id, Number(slider.value)]));
}

// The seed that was typed, or undefined.
export function typedSeed() {
  return Number.isSafeInteger(seed.valueAsNumber) ? seed.valueAsNumber : undefined;
}

export function chosenSeed() {
  return typedSeed() ?? Math.floor(Math.random() * MAX_RANDOM_SEED);
}

// The same seed again would write the same text.
export function advanceSeed() {
  if (typedSeed() === undefined) return;
  seed.value = typedSeed() + 1;
  keepSettings();
}

export function showSettings() {
  for (const slider of sliders) {
    const output = document.querySelector(`output[for=${slider.id}]`);
    output.textContent = number(Number(slider.value));
  }
}

function keepSettings() {
  keep({ settings: { ...settings(), seed: seed.value } });
}

function restore() {
  const kept = recall("settings") ?? {};
  for (const field of [...sliders, seed]) {
    // the browser makes a value fit the limits of its field
    if (kept[field.id] !== undefined) field.value = kept[field.id];
  }
  const theme = recall("theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

function switchTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  keep({ theme: root.dataset.theme });
}

restore();
document.getElementById("theme").addEventListener("click", switchTheme);
for (const field of [...sliders, seed]) {
  field.addEventListener("input", () => {
    showSettings();
    keepSettings();
  });
}
