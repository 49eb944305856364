// The demo page: one text that the reader and the model write in turn.
import { ApiError, describeModel, nextTokens, setToken, write } from "./api.js";
import { drawBars, setStale } from "./bars.js";
import * as colours from "./colours.js";
import { language, say, setLanguage } from "./language.js";
import { copy, openSheet, pythonProgram, showBeginnings, showModel } from "./model.js";
import { advanceSeed, chosenSeed, settings, showSettings, typedSeed } from "./settings.js";
import * as text from "./text.js";

const NUM_BARS = 10;
const TYPING_PAUSE_MS = 350;

const $ = (id) => document.getElementById(id);
const { area } = text;

let model = null; // as /v1/models describes it
let writing = null; // the AbortController of the text being written
let probing = null; // and that of the question for next tokens
let numTokens = null; // of the text, as far as the server was asked
let candidates = [];
let lastMessage = null; // [element id, key, values], to be repeated in the other language
let lastWriting = null; // { before, after }: what "again" takes back

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
    if ($("token").value) show("error", "wrongPassword");
    else $("token").focus();
    return;
  }
  show("error", error.kind, error.values);
}

// ---- next tokens and the meter

let pause = null;
function askSoon() {
  clearTimeout(pause);
  setStale(true);
  pause = setTimeout(() => ask().catch(fail), TYPING_PAUSE_MS);
}

async function ask() {
  clearTimeout(pause);
  probing?.abort();
  if (!model) return;
  probing = new AbortController();
  const { signal } = probing;
  const found = await nextTokens(area.value, NUM_BARS, model.context_length, signal);
  // an earlier silence of the server is over
  if (!writing && lastMessage?.[0] === "error") hideMessages();
  ({ numTokens, candidates } = found);
  drawMeter();
  showBars();
  if (!writing) await colours.update(model.context_length);
}

function drawMeter() {
  if (!model || numTokens === null) return;
  const context = model.context_length;
  const isOver = numTokens >= context; // the next token takes a place too
  $("meter").textContent = say(isOver ? "over" : "meter", { used: numTokens, context });
  $("slides").hidden = !isOver;
  const note = isOver ? say("slides", { context }) : "";
  if ($("slides").textContent !== note) $("slides").textContent = note; // read aloud once
}

function showBars() {
  drawBars(candidates, writing !== null, (name) => {
    text.remember();
    text.append(name);
    drawButtons();
    ask().catch(fail);
  });
}

// ---- writing

// What to ask for next, with `left` tokens to write. The model reads all of the text while there is
// room for a new token, and never less than three quarters of what it can read.
function request(left, seed) {
  const context = model.context_length;
  const room = Math.max(context - numTokens, Math.ceil(context / 4));
  const max_tokens = Math.min(left, room);
  const truncate_prompt_tokens = context - max_tokens;
  return { prompt: area.value, ...settings(), max_tokens, truncate_prompt_tokens, seed };
}

async function startWriting() {
  if (writing || !model) return;
  writing = new AbortController();
  setBusy(true);
  const before = text.remember();
  const started = performance.now();
  const seed = chosenSeed();
  let count = 0;
  let hasFailed = false;
  const onText = (piece) => {
    text.append(piece);
    count += 1;
    numTokens += 1; // nearly: a piece is a token or, within a character, a few
    drawMeter();
    text.scrollToEnd();
  };
  try {
    await ask();
    let left = settings().max_tokens;
    let end;
    do {
      const [alreadyRead, alreadyWritten] = [numTokens, count];
      end = await write(request(left, seed), onText, writing.signal);
      left -= end.count;
      count = alreadyWritten + end.count;
      numTokens = alreadyRead + end.count;
    } while (end.reason === "length" && left > 0);
    const seconds = (performance.now() - started) / 1000;
    const key = { time_limit: "late", stop: "ended" }[end.reason] ?? "done";
    show("status", key, { count, seconds: Number(seconds.toFixed(1)), seed: String(seed) });
  } catch (error) {
    if (error.name === "AbortError") show("status", "stopped", { count });
    else {
      hasFailed = true;
      fail(error);
    }
  }
  writing = null;
  const hasGrown = area.value.length > before.text.length;
  if (hasGrown) lastWriting = { before, after: area.value };
  else text.forget();
  setBusy(false);
  $("spoken").textContent = area.value.slice(before.text.length);
  if (!hasGrown) return;
  // what went wrong stays on the page, with the bars of the text before
  if (hasFailed) setStale(true);
  else ask().catch(fail);
}

function stopWriting() {
  writing?.abort();
}

// Another continuation of the same text; the last one can be had back by "undo".
function writeAgain() {
  const { before } = lastWriting;
  text.remember();
  text.setText(before.text, before.written);
  advanceSeed();
  startWriting();
}

let cameFrom = null; // the button that began the writing, if the keyboard was on one
function setBusy(isBusy) {
  const focused = document.activeElement;
  $("write").hidden = isBusy;
  $("stop").hidden = !isBusy;
  area.readOnly = isBusy;
  area.setAttribute("aria-busy", isBusy);
  document.body.classList.toggle("busy", isBusy);
  drawButtons();
  showBars();
  if (isBusy) {
    cameFrom = focused.closest("button");
    if (cameFrom) $("stop").focus();
    show("status", "writing");
  } else if (focused === $("stop")) {
    (cameFrom?.disabled ? $("write") : cameFrom ?? $("write")).focus();
  }
}

function drawButtons() {
  const isBusy = writing !== null;
  $("undo").disabled = isBusy || !text.canUndo();
  $("again").disabled = isBusy || lastWriting?.after !== area.value;
  for (const button of document.querySelectorAll("#examples button")) button.disabled = isBusy;
}

// ---- the rest of the page

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = say(element.dataset.text);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    if (element.matches("button")) element.title = say(element.dataset.label);
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", button.dataset.language === language);
  }
  $("seed").placeholder = say("seedEmpty");
  if (lastMessage) show(...lastMessage);
  showSettings();
  if (model) showModel(model, fail);
  drawExamples();
  drawMeter();
  showBars();
  colours.describeCaret();
}

function drawExamples() {
  showBeginnings(model?.about, (prompt) => {
    text.remember();
    text.setText(prompt, []);
    startWriting();
  });
  drawButtons();
}

async function connect() {
  model = await describeModel();
  showModel(model, fail);
  drawExamples();
  $("gate").hidden = true;
  hideMessages();
  await ask();
}

area.addEventListener("input", () => {
  text.noteTyping();
  drawButtons();
  askSoon();
});
$("write").addEventListener("click", startWriting);
$("stop").addEventListener("click", stopWriting);
$("again").addEventListener("click", writeAgain);
$("undo").addEventListener("click", () => {
  text.undo();
  drawButtons();
  askSoon();
});
$("copy").addEventListener("click", async () => {
  show("status", (await copy(area.value)) ? "copied" : "copyFailed");
});
$("colours").addEventListener("click", () => {
  colours.toggle();
  if (!writing && model) colours.update(model.context_length).catch(fail);
});
document.addEventListener("selectionchange", colours.describeCaret);
$("python").addEventListener("click", () => {
  if (!model || numTokens === null) return;
  const body = request(settings().max_tokens, typedSeed());
  if (numTokens <= body.truncate_prompt_tokens) delete body.truncate_prompt_tokens;
  openSheet("python", say("pythonNote"), pythonProgram(model, body));
});
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    setLanguage(button.dataset.language);
    translate();
  });
}
$("gate").addEventListener("submit", (event) => {
  event.preventDefault(); // nothing to send: the token goes into later requests
  const typed = $("token").value;
  if (/^[\x21-\x7e]*$/.test(typed)) {
    setToken(typed);
    connect().catch(fail);
  } else {
    show("error", "wrongPassword"); // no header can hold it
  }
});
document.addEventListener("keydown", (event) => {
  if ($("sheet").open) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    startWriting();
  }
  if (event.key === "Escape") stopWriting();
});

text.restore();
translate();
connect().catch(fail);
