// The demo page: one text that the reader and the model write in turn.
import { ApiError, describeModel, nextTokens, setToken, write } from "./api.js";
import { EXAMPLES, STRINGS } from "./strings.js";

const NUM_BARS = 10;
const TYPING_PAUSE_MS = 350;

const $ = (id) => document.getElementById(id);
const area = $("text");

let language = navigator.language.toLowerCase().startsWith("pt") ? "pt" : "en";
let model = null; // { id, context_length }
let written = []; // [start, end) of what the model wrote
let history = []; // { text, written } before every change that is not typing
let writing = null; // the AbortController of the text being written
let probing = null; // and that of the question for next tokens
let numTokens = null; // of the text, as far as the server was asked
let lastCandidates = [];
let lastMessage = null; // [element id, key, values], to be repeated in the other language

function say(key, values = {}) {
  return STRINGS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// ---- messages

function show(id, key, values) {
  hideMessages();
  lastMessage = [id, key, values];
  $(id).textContent = say(key, values);
  $("error").hidden = id !== "error";
}

function hideMessages() {
  lastMessage = null;
  $("error").hidden = true;
  $("error").textContent = $("status").textContent = "";
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) throw error;
  if (error.kind === "token") {
    $("gate").hidden = false;
    if ($("token").value) show("error", "wrongToken");
    else $("token").focus();
    return;
  }
  show("error", error.kind, { context: model?.context_length, ...error.values });
}

// ---- the text

function setText(text, marks) {
  area.value = text;
  written = marks;
  draw();
}

// The mirror lies behind the textarea, gives it its height and shows who wrote what.
function draw() {
  const text = area.value;
  const parts = [];
  let end = 0;
  for (const [from, to] of written) {
    const mark = document.createElement("mark");
    mark.textContent = text.slice(from, to);
    parts.push(text.slice(end, from), mark);
    end = to;
  }
  parts.push(text.slice(end), "\u200b"); // so that a last empty line has a height
  $("mirror").replaceChildren(...parts);
  $("undo").disabled = history.length === 0 || writing !== null;
}

function remember() {
  history.push({ text: area.value, written: written.map((span) => [...span]) });
}

function append(text) {
  const start = area.value.length;
  const last = written.at(-1);
  if (last?.[1] === start) last[1] += text.length;
  else written.push([start, start + text.length]);
  area.value += text;
  draw();
}

// Marks stay before the place where somebody typed, and go after it.
let typedBefore = "";
function noteTyping() {
  let same = 0;
  while (same < typedBefore.length && typedBefore[same] === area.value[same]) same += 1;
  written = written
    .filter(([from]) => from < same)
    .map(([from, to]) => [from, Math.min(to, same)]);
  draw();
  askSoon();
}

// ---- next tokens

let pause = null;
function askSoon() {
  clearTimeout(pause);
  $("bars").classList.add("stale");
  pause = setTimeout(() => ask().catch(fail), TYPING_PAUSE_MS);
}

async function ask() {
  clearTimeout(pause);
  probing?.abort();
  probing = new AbortController();
  numTokens = null;
  const { signal } = probing;
  const found = await nextTokens(area.value, NUM_BARS, signal);
  // an earlier silence of the server is over
  if (!writing && lastMessage?.[0] === "error") hideMessages();
  numTokens = found.numTokens;
  lastCandidates = found.candidates;
  drawMeter();
  drawBars();
}

function drawMeter() {
  if (!model || numTokens === null) return;
  $("meter").textContent = say("meter", { used: numTokens, context: model.context_length });
}

function drawBars() {
  const largest = lastCandidates[0]?.probability ?? 1;
  const bars = lastCandidates.map(({ name, probability }) => {
    const percent = probability.toLocaleString(language, {
      style: "percent",
      minimumFractionDigits: 1,
      maximumFractionDigits: 1,
    });
    const bar = document.createElement("button");
    bar.type = "button";
    const special = /^<\|.*\|>$/.test(name) || name === "</s>";
    const partial = name.startsWith("bytes:\\x");
    const shown = special ? say("endOfText") : partial ? say("partOfCharacter") : visible(name);
    bar.disabled = special || partial || writing !== null;
    bar.classList.toggle("special", special || partial);
    bar.style.setProperty("--share", probability / largest);
    const label = name.trim() || (name.includes("\n") ? say("newline") : shown);
    bar.setAttribute("aria-label", say("barLabel", { token: special ? shown : label, percent }));
    bar.append(part("token", shown), part("track", ""), part("percent", percent));
    bar.addEventListener("click", () => {
      remember();
      append(name);
      typedBefore = area.value;
      ask().catch(fail);
    });
    const item = document.createElement("li");
    item.append(bar);
    return item;
  });
  $("bars").replaceChildren(...bars);
  $("bars").classList.toggle("stale", writing !== null);
}

function part(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

function visible(name) {
  return name.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥");
}

// ---- writing

function settings() {
  const names = ["temperature", "top_k", "top_p", "max_tokens", "repetition_penalty"];
  return Object.fromEntries(names.map((name) => [name, Number($(name).value)]));
}

async function startWriting() {
  if (writing) return;
  writing = new AbortController();
  setBusy(true);
  remember();
  const before = area.value.length;
  const started = performance.now();
  let pieces = 0;
  try {
    await ask();
    const body = settings();
    body.max_tokens = Math.min(body.max_tokens, model.context_length - numTokens);
    const onText = (text) => {
      if (!text) return;
      pieces += 1;
      append(text);
      $("mirror").lastChild.previousSibling?.scrollIntoView?.({ block: "nearest" });
    };
    const end = await write({ ...body, prompt: area.value }, onText, writing.signal);
    const seconds = ((performance.now() - started) / 1000).toLocaleString(language, {
      maximumFractionDigits: 1,
    });
    const key = { time_limit: "late", stop: "ended" }[end.reason] ?? "done";
    show("status", key, { count: end.count, seconds });
  } catch (error) {
    if (error.name === "AbortError") show("status", "stopped", { count: pieces });
    else fail(error);
  } finally {
    writing = null;
    setBusy(false);
  }
  if (area.value.length === before) history.pop();
  $("spoken").textContent = area.value.slice(before);
  typedBefore = area.value;
  draw();
  // what went wrong stays on the page: only a text that grew has new next tokens
  if (pieces) ask().catch(fail);
  else drawBars();
}

function stopWriting() {
  writing?.abort();
}

function setBusy(busy) {
  const hadFocus = document.activeElement === $(busy ? "write" : "stop");
  $("write").hidden = busy;
  $("stop").hidden = !busy;
  if (hadFocus) $(busy ? "stop" : "write").focus();
  area.readOnly = busy;
  area.setAttribute("aria-busy", busy);
  document.body.classList.toggle("busy", busy);
  for (const button of document.querySelectorAll("#examples button, #bars button:not(.special)")) {
    button.disabled = busy;
  }
  $("undo").disabled = busy || history.length === 0;
  $("bars").classList.toggle("stale", busy);
  if (busy) show("status", "writing");
}

// ---- the rest of the page

function setLanguage(value) {
  language = value;
  document.documentElement.lang = value;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = say(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    if (element.matches("button")) element.title = say(element.dataset.label);
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", button.dataset.language === value);
  }
  area.placeholder = say("placeholder");
  if (lastMessage) show(...lastMessage);
  for (const slider of document.querySelectorAll("input[type=range]")) showValue(slider);
  drawMeter();
  drawBars();
}

function showValue(slider) {
  const value = Number(slider.value).toLocaleString(language);
  document.querySelector(`output[for=${slider.id}]`).textContent = value;
}

function switchTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
}

async function connect() {
  model = await describeModel();
  $("model").textContent = model.id;
  $("gate").hidden = true;
  const longest = Math.min(200, model.context_length - 1);
  $("max_tokens").max = longest - (longest % 5);
  hideMessages();
  await ask();
}

for (const prompt of EXAMPLES) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `${prompt} …`;
  button.addEventListener("click", () => {
    remember();
    setText(prompt, []);
    typedBefore = prompt;
    startWriting();
  });
  const item = document.createElement("li");
  item.append(button);
  $("examples").append(item);
}
area.addEventListener("beforeinput", () => (typedBefore = area.value));
area.addEventListener("input", noteTyping);
$("write").addEventListener("click", startWriting);
$("stop").addEventListener("click", stopWriting);
$("undo").addEventListener("click", () => {
  const { text, written: marks } = history.pop();
  setText(text, marks);
  askSoon();
});
$("copy").addEventListener("click", async () => {
  const copied = await navigator.clipboard?.writeText(area.value).then(() => true, () => false);
  show("status", copied ? "copied" : "copyFailed");
});
$("theme").addEventListener("click", switchTheme);
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => setLanguage(button.dataset.language));
}
for (const slider of document.querySelectorAll("input[type=range]")) {
  slider.addEventListener("input", () => showValue(slider));
}
$("gate").addEventListener("submit", (event) => {
  event.preventDefault(); // nothing to send: the token goes into later requests
  const typed = $("token").value;
  if (/^[\x21-\x7e]*$/.test(typed)) {
    setToken(typed);
    connect().catch(fail);
  } else {
    show("error", "wrongToken"); // no header can hold it
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    startWriting();
  }
  if (event.key === "Escape") stopWriting();
});

setLanguage(language);
draw();
connect().catch(fail);
