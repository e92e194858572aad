// The server: its models, and one streamed answer at a time.

export class Api {
  constructor() {
    this.key = "";
  }

  headers() {
    return this.key ? { authorization: `Bearer ${this.key}` } : {};
  }

  /** @returns {Promise<string[]>} what can be asked for: the model and its experts */
  async models() {
    const answer = await fetch("v1/models", { headers: this.headers() });
    if (!answer.ok) throw await refusal(answer);
    return (await answer.json()).data.map((model) => model.id);
  }

  /**
   * Ask, and give the pieces of the answer as they come.
   * @param {string} model
   * @param {object[]} messages the conversation
   * @param {AbortSignal} signal ends it: the server stops working at once
   */
  async *answer(model, messages, signal) {
    const body = {
      model, messages, stream: true, modalities: ["text", "audio"], audio: { voice: "alloy", format: "pcm16" },
    };
    const answer = await fetch("v1/chat/completions", {
      method: "POST", signal, body: JSON.stringify(body),
      headers: { ...this.headers(), "content-type": "application/json" },
    });
    if (!answer.ok) throw await refusal(answer);
    for await (const event of events(answer.body)) {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) yield choice;
    }
  }
}

async function refusal(answer) {
  const wait = answer.headers.get("retry-after");
  let text = `The server answers with status ${answer.status}.`;
  try {
    text = (await answer.json()).error.message;
  } catch { /* the status says it */ }
  return Object.assign(new Error(wait ? `${text} Try again in ${wait} s.` : text), { status: answer.status });
}

/** Parse server-sent events, however the network cut them. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const data = held.slice(0, end).replace(/^data: /, "");
      held = held.slice(end + 2);
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

/** @returns {Promise<string>} the bytes of a blob in base64 */
export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

/** @returns {Uint8Array} the bytes of base64 */
export function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
