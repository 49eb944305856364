// The server's API: what the page knows of HTTP.

export class ApiError extends Error {
  // kind: busy | token | full | gone | broken | refused
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

export async function describeModel() {
  const answer = await send("/v1/models", {});
  return (await answer.json()).data[0];
}

// The most likely next tokens, and the number of tokens of the prompt.
export async function nextTokens(prompt, count, signal) {
  const body = { prompt, max_tokens: 1, temperature: 0, logprobs: count };
  const answer = await post(body, signal);
  const { choices, usage } = await answer.json();
  const candidates = Object.entries(choices[0].logprobs.top_logprobs[0])
    .map(([name, logprob]) => ({ name, probability: Math.exp(logprob) }))
    .sort((a, b) => b.probability - a.probability);
  return { candidates, numTokens: usage.prompt_tokens };
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
      onText(choice.text);
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
  if (answer.status === 429 || answer.status === 503) {
    throw new ApiError("busy", { seconds: answer.headers.get("Retry-After") ?? 5 });
  }
  if (error.code === "context_length_exceeded") throw new ApiError("full");
  throw new ApiError("refused", { message: error.message ?? answer.statusText });
}
