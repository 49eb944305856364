// The server's API: what the page knows of HTTP.

export class ApiError extends Error {
  // kind: busy | token | long | gone | broken | refused
  constructor(kind, values = {}) {
    super(kind);
    this.kind = kind;
    this.values = values;
  }
}

let token = null; // in memory only: closing the page forgets it

export function setToken(value) {
  token = value;
}

export function hasToken() {
  return token !== null;
}

export async function describeModel() {
  const answer = await send("/v1/models", {});
  return (await answer.json()).data[0];
}

export async function readCard() {
  return (await send("/card", {})).text();
}

// The most likely next tokens, and the number of tokens of the prompt.
export async function nextTokens(prompt, count, context, signal) {
  const body = { prompt, max_tokens: 1, temperature: 0, logprobs: count };
  const answer = await post({ ...body, truncate_prompt_tokens: context - 1 }, signal);
  const { choices, usage } = await answer.json();
  const candidates = Object.entries(choices[0].logprobs.top_logprobs[0])
    .map(([name, logprob]) => ({ name, probability: Math.exp(logprob) }))
    .sort((a, b) => b.probability - a.probability);
  return { candidates, numTokens: usage.prompt_tokens + usage.truncated_prompt_tokens };
}

// Every token of the text that the model can read: its place in the text, its probability, and
// the token that was most likely there.
export async function score(text, context, signal) {
  const body = { prompt: text, echo: true, max_tokens: 0, logprobs: 1 };
  const answer = await post({ ...body, truncate_prompt_tokens: context }, signal);
  const { text: read, logprobs } = (await answer.json()).choices[0];
  // the server counts characters, a JavaScript string counts the halves of some of them
  const units = [text.length - read.length];
  for (const character of read) units.push(units.at(-1) + character.length);
  const ends = [...logprobs.text_offset.slice(1), units.length - 1];
  const tokens = [];
  let partial = 0; // of the tokens before that are part of the same character
  logprobs.text_offset.forEach((offset, index) => {
    const logprob = logprobs.token_logprobs[index];
    const [best, bestLogprob] = Object.entries(logprobs.top_logprobs[index] ?? {})[0] ?? [];
    const [start, end] = [units[offset], units[ends[index]]];
    if (logprob === null) return; // nothing predicts the first one
    if (start === end) {
      partial += logprob;
      return;
    }
    const probability = Math.exp(logprob + partial);
    tokens.push({ start, end, probability, best, bestProbability: Math.exp(bestLogprob) });
    partial = 0;
  });
  return tokens;
}

// Calls onText with every piece; returns how the text ended: { reason, count }.
export async function write(body, onText, signal) {
  const options = { stream: true, stream_options: { include_usage: true } };
  const answer = await post({ ...body, ...options }, signal);
  const end = { reason: null, count: 0 };
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return end;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError("refused", { message: chunk.error.message });
    if (chunk.usage) end.count = chunk.usage.completion_tokens;
    for (const choice of chunk.choices) {
      if (choice.text) onText(choice.text);
      if (choice.finish_reason) end.reason = choice.stop_reason ?? choice.finish_reason;
    }
  }
  throw new ApiError("broken");
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("broken");
    }
    if (part.done) return;
    const whole = (buffer + part.value).split("\n\n");
    buffer = whole.pop();
    for (const event of whole) yield event.replace(/^data: /, "");
  }
}

function post(body, signal) {
  const headers = { "Content-Type": "application/json" };
  return send("/v1/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
}

async function send(path, options) {
  const headers = { ...options.headers };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("gone");
  }
  if (answer.ok) return answer;
  const { error = {} } = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new ApiError("token");
  if (answer.status === 413) throw new ApiError("long");
  if (answer.status === 429 || answer.status === 503) {
    throw new ApiError("busy", { seconds: Number(answer.headers.get("Retry-After") ?? 5) });
  }
  throw new ApiError("refused", { message: error.message ?? answer.statusText });
}
