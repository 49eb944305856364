// What the page says of the model, and the sheet for its card and for Python.
import { hasToken, readCard } from "./api.js";
import { language, nameOf, number, say } from "./language.js";
import { BEGINNINGS } from "./strings.js";

const $ = (id) => document.getElementById(id);

export function showModel({ id, about }, onError) {
  $("model").textContent = about.title ?? id;
  const facts = [];
  if (about.parameters) {
    const short = { notation: "compact", compactDisplay: "long", maximumFractionDigits: 1 };
    facts.push(say("parameters", { count: number(about.parameters, short) }));
  }
  if (about.languages.length) {
    facts.push(say("languages", { names: about.languages.map(nameOf).join(", ") }));
  }
  $("facts").textContent = facts.join(" · ");
  if (about.card) {
    const link = document.createElement("a");
    link.href = "/card";
    link.textContent = say("card");
    link.addEventListener("click", (event) => {
      event.preventDefault(); // a link cannot send a password
      readCard().then((card) => openSheet("card", "", card), onError);
    });
    $("facts").append(facts.length ? " · " : "", link);
  }
  $("toy").hidden = !about.is_toy;
}

// Beginnings to click on: the run's own prompts, or neutral ones in the language of the model.
export function showBeginnings(about, onPick) {
  const lang = about?.languages.find((code) => BEGINNINGS[code]) ?? language;
  const prompts = about?.prompts.length ? about.prompts : BEGINNINGS[lang];
  $("text").placeholder = `${prompts[0]}…`;
  $("examples").lang = lang;
  $("examples").replaceChildren(
    ...prompts.map((prompt) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${prompt} …`;
      button.addEventListener("click", () => onPick(prompt));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

export function openSheet(title, note, text) {
  $("sheet-title").textContent = say(title);
  $("sheet-note").textContent = note;
  $("sheet-text").textContent = text;
  $("sheet-status").textContent = "";
  $("sheet").showModal();
}

// A program that asks this server for what the page would ask next.
export function pythonProgram(model, body) {
  const { top_k, repetition_penalty, truncate_prompt_tokens, ...known } = body;
  const own = { top_k, repetition_penalty, truncate_prompt_tokens }; // not part of OpenAI's API
  const words = Object.entries({ model: model.id, ...known, extra_body: own })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
  const key = hasToken() ? 'os.environ["GPT_PT_TOKEN"]' : '"none"';
  return [
    "# pip install openai",
    ...(hasToken() ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=${key})`,
    "answer = client.completions.create(",
    ...words,
    ")",
    "print(answer.choices[0].text)",
  ].join("\n");
}

$("sheet-close").addEventListener("click", () => $("sheet").close());
$("sheet-copy").addEventListener("click", async () => {
  const isCopied = await copy($("sheet-text").textContent);
  $("sheet-status").textContent = say(isCopied ? "copied" : "copyFailed");
});

export async function copy(text) {
  return (await navigator.clipboard?.writeText(text).then(() => true, () => false)) ?? false;
}
