// What the page does: hold, speak, send, hear; and stop whatever plays when somebody speaks.

import { Api, base64, bytes } from "./api.js";
import { Microphone } from "./microphone.js";
import { Player } from "./player.js";

const at = (id) => document.getElementById(id);
const api = new Api();
const player = new Player();
const microphone = new Microphone((level) => { at("level").value = level; });
const FORMATS = ["wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "webm", "aac", "3gp", "amr"];
const SHORTEST_S = 0.2;
// a press that is shorter than this is a click: it starts, and the next one sends
const CLICK_MS = 300;

let messages = [];
let current = null;
let pressedAt = 0;

function say(text, isError = false) {
  at("state").textContent = text;
  at("state").classList.toggle("error", isError);
}

function add(who) {
  const item = document.createElement("li");
  item.className = who === "You" ? "user" : "model";
  const name = Object.assign(document.createElement("span"), { className: "who", textContent: who });
  const words = document.createElement("span");
  item.append(name, words);
  at("talk").append(item);
  item.scrollIntoView({ block: "end" });
  return words;
}

async function connect() {
  try {
    const names = await api.models();
    const chosen = at("model").value;
    at("model").replaceChildren(...names.map((name) => new Option(name.split("/").pop(), name)));
    if (names.includes(chosen)) at("model").value = chosen;
    say("Ready.");
  } catch (error) {
    say(error.status === 401 ? "Enter an API key under Settings." : `Not connected: ${error.message}`, true);
    if (error.status === 401) document.querySelector("details").open = true;
  }
}

/** Silence the answer that plays, and end it on the server. */
function interrupt() {
  if (current) current.abort();
  player.stop();
}

async function ask(recording, format) {
  interrupt();
  const mine = (current = new AbortController());
  at("stop").disabled = false;
  const data = await base64(recording);
  messages.push({ role: "user", content: [{ type: "input_audio", input_audio: { data, format } }] });
  const heard = add("You");
  heard.textContent = "…";
  const words = add("Model");
  const began = performance.now();
  const since = () => `${Math.round(performance.now() - began)} ms`;
  for (const id of ["first-text", "first-audio", "whole", "lasts"]) at(id).textContent = "–";
  say("Waiting for the answer …");
  player.begin();
  let written = "";
  let spoken = "";
  let id = null;
  let complete = false;
  try {
    for await (const { delta, finish_reason: reason } of api.answer(at("model").value, messages, mine.signal)) {
      if (delta.slm?.heard) heard.textContent = delta.slm.heard;
      if (delta.slm?.answer) written += delta.slm.answer;
      const audio = delta.audio;
      if (audio?.transcript) {
        if (at("first-text").textContent === "–") at("first-text").textContent = since();
        spoken += audio.transcript;
      }
      // what is heard takes the place of what was written before it
      words.textContent = spoken || written;
      if (audio?.data) {
        if (at("first-audio").textContent === "–") at("first-audio").textContent = since();
        player.push(bytes(audio.data));
        say("The model speaks …");
      }
      id = audio?.id ?? id;
      if (reason) complete = true;
    }
    at("whole").textContent = since();
    at("lasts").textContent = `${player.seconds.toFixed(2)} s`;
    if (complete && id) messages.push({ role: "assistant", audio: { id } });
    if (heard.textContent === "…") heard.textContent = "(spoken)";
    await player.finished();
    if (current === mine) say("Ready.");
  } catch (error) {
    // a question without its answer would make the next one a second question
    messages.pop();
    words.classList.add("cut");
    if (heard.textContent === "…") heard.textContent = "(spoken)";
    if (error.name !== "AbortError") say(error.message, true);
    else if (current === mine) say("Stopped.");
  } finally {
    if (current === mine) {
      current = null;
      at("stop").disabled = true;
    }
  }
}

async function hold() {
  if (microphone.recording) return;
  interrupt();
  at("hold").setAttribute("aria-pressed", "true");
  pressedAt = performance.now();
  try {
    // speaking is the gesture that lets the answer be heard
    await player.wake();
    await microphone.open();
    if (at("hold").getAttribute("aria-pressed") !== "true") return;
    microphone.start();
    at("hold").textContent = "Listening … release to send";
    say("Listening.");
  } catch (error) {
    at("hold").setAttribute("aria-pressed", "false");
    say(`No microphone: ${error.message}`, true);
  }
}

function release() {
  at("hold").setAttribute("aria-pressed", "false");
  at("hold").textContent = "Hold to talk";
  if (!microphone.recording) return;
  const { wav, seconds } = microphone.stop();
  if (seconds < SHORTEST_S) say("Too short: hold the button while you speak.", true);
  else ask(wav, "wav");
}

const wasClick = () => performance.now() - pressedAt < CLICK_MS;

at("hold").addEventListener("pointerdown", (event) => {
  event.preventDefault();
  at("hold").focus();
  if (microphone.recording) release();
  else {
    at("hold").setPointerCapture(event.pointerId);
    hold();
  }
});
at("hold").addEventListener("pointerup", () => { if (microphone.recording && !wasClick()) release(); });
at("hold").addEventListener("pointercancel", release);
// screen readers press buttons by a click without a pointer
at("hold").addEventListener("click", (event) => {
  if (event.detail === 0 && event.pointerType !== "mouse") {
    if (microphone.recording) release(); else hold();
  }
});

const takesKeys = (element) => element.matches("input, select, textarea, summary, button:not(#hold)");
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") interrupt();
  if (event.code !== "Space" || takesKeys(event.target)) return;
  event.preventDefault();
  if (!event.repeat) hold();
});
document.addEventListener("keyup", (event) => {
  if (event.code !== "Space" || takesKeys(event.target)) return;
  event.preventDefault();
  release();
});

at("stop").addEventListener("click", interrupt);
at("fresh").addEventListener("click", () => {
  interrupt();
  messages = [];
  at("talk").replaceChildren();
  say("Ready.");
});
at("file").addEventListener("change", async () => {
  const [file] = at("file").files;
  if (!file) return;
  at("file").value = "";
  const ending = file.name.split(".").pop().toLowerCase();
  if (!FORMATS.includes(ending)) return say(`Send ${FORMATS.join(", ")}.`, true);
  await player.wake();
  ask(file, ending);
});
at("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  at("key").blur();
});
at("key").addEventListener("change", () => {
  api.key = at("key").value.trim();
  sessionStorage.setItem("slm-key", api.key);
  connect();
});
at("model").addEventListener("pointerdown", connect);

api.key = at("key").value = sessionStorage.getItem("slm-key") ?? "";
connect();
