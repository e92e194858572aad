// Ask a gateway for everything with the openai SDK and print what came: `node drive.mjs ADDRESS QUESTION.wav`.
import fs from "node:fs";
import OpenAI from "openai";

const [address, question] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "any", baseURL: `http://${address}/v1`, maxRetries: 0 });
const told = {};

const models = await client.models.list();
told.models = models.data.map((model) => model.id);

const data = fs.readFileSync(question).toString("base64");
const spoken = { role: "user", content: [{ type: "input_audio", input_audio: { data, format: "wav" } }] };
const whole = await client.chat.completions.create({
  model: "fake",
  messages: [spoken],
  modalities: ["text", "audio"],
  audio: { voice: "alloy", format: "wav" },
});
const audio = whole.choices[0].message.audio;
told.transcript = audio.transcript;
told.riff = Buffer.from(audio.data, "base64").subarray(0, 4).toString();

const stream = await client.chat.completions.create({
  model: "fake",
  messages: [spoken, { role: "assistant", audio: { id: audio.id } }, { role: "user", content: "hello" }],
  modalities: ["text", "audio"],
  audio: { voice: "alloy", format: "pcm16" },
  stream: true,
  stream_options: { include_usage: true },
});
told.streamed = { transcript: "", samples: 0 };
for await (const chunk of stream) {
  const piece = chunk.choices[0]?.delta.audio;
  if (piece?.transcript) told.streamed.transcript += piece.transcript;
  if (piece?.data) told.streamed.samples += Buffer.from(piece.data, "base64").length / 2;
  if (chunk.usage) told.streamed.units = chunk.usage.completion_tokens_details.audio_tokens;
}

const speech = await client.audio.speech.create({ model: "fake", voice: "alloy", input: "hi", response_format: "pcm" });
told.speech = (await speech.arrayBuffer()).byteLength / 2;

const transcription = await client.audio.transcriptions.create({ model: "fake", file: fs.createReadStream(question) });
told.transcription = transcription.text;

try {
  await client.chat.completions.create({ model: "fake", messages: [spoken], n: 2 });
} catch (error) {
  told.refused = { status: error.status, param: error.param };
}
console.log(JSON.stringify(told));
