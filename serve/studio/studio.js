// The page: the form, the task on the screen, the queue, the gallery.

import { blobUrl, call, currentKey, fieldId, hasKey, json, Problem, span, useKey } from "./service.js";
import * as stage from "./stage.js";

const $ = (id) => document.getElementById(id);
const ENDED = ["completed", "failed", "cancelled"];
const TEXTS = ["resolution", "style", "negative_prompt"];
const NUMBERS = ["duration", "seed", "fps", "steps", "guidance", "priority", "deadline_s"];
const IDEAS = ["A red ball rolls left behind a blue cube", "Two yellow cubes collide on the sand",
  "A green ball bounces in the snow at dusk"];
const thumbnails = new Map();   // task id > object URL
const cards = new Map();        // task id > its button, and what it was made from
let current = null;             // the task on the screen
let continued = null;           // the task that the next video goes on from
let planned = "";               // the task whose plan is drawn
let tasks = [];
let older = [];                 // pages that were asked for
let nextAfter = null;

// --- the form ---------------------------------------------------------------------------------------------------------

async function wanted() {
  const config = { quality: document.querySelector("[name=quality]:checked").value };
  for (const name of TEXTS) if ($(name).value.trim()) config[name] = $(name).value.trim();
  for (const name of NUMBERS) if ($(name).value !== "") config[name] = Number($(name).value);
  for (const name of ["understanding", "physics", "allow_downgrade"]) if (!$(name).checked) config[name] = false;
  if ($("realtime").checked) config.realtime = true;
  const [type, direction] = $("camera_control").value.split(" ");
  if (type) config.camera_control = type === "auto" ? true : direction ? { type, direction } : { type };
  const request = { prompt: $("prompt").value, config };
  for (const name of ["first_frame", "last_frame"]) {
    if ($(name).files.length) request[name] = await picture($(name).files[0], name);
  }
  if (continued) request.extend = continued;
  return request;
}

// A photograph of any size as a JPEG that the service takes.
async function picture(file, field) {
  let image;
  try { image = await createImageBitmap(file); } catch {
    throw new Problem(`“${file.name}” is not a picture that can be read: take a PNG, JPEG or WebP.`, { field });
  }
  const shrink = Math.min(1, 2048 / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * shrink);
  canvas.height = Math.round(image.height * shrink);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.95);
}

// Nobody is taken out of the field that they write in by an answer that they did not ask for.
function complain(error, { asked = true } = {}) {
  $("problem").textContent = error.message;
  const id = error.status === 401 ? "key" : fieldId(error.field || "");
  const input = document.getElementById(id);
  if (error.status === 401) askForKey();
  if (!input || !input.closest("form")) return;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", "problem");
  const folded = input.closest("details");
  if (folded) folded.open = true;
  if (asked) input.focus();
}

function content() {
  $("problem").textContent = "";
  for (const input of document.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  content();
  takeKey();
  if (!hasKey()) return complain(new Problem("An API key is needed first.", { field: "key" }));
  if (!$("prompt").value.trim()) return complain(new Problem("Say what should happen.", { field: "prompt" }));
  const wrong = [...$("form").elements].find((input) => input.willValidate && !input.checkValidity());
  if (wrong) return complain(new Problem(`${wrong.labels[0].textContent}: ${wrong.validationMessage}`, { field: wrong.id }));
  $("go").disabled = true;
  try {
    const task = await json("/generate", { method: "POST", body: JSON.stringify(await wanted()),
      headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() } });
    goOn(null);
    open(task);
    refresh();
  } catch (error) {
    complain(error);
  } finally {
    $("go").disabled = false;
  }
});

function goOn(task) {
  continued = task ? task.task_id : null;
  $("continues").hidden = !task;
  if (!task) return;
  $("continues").firstElementChild.textContent = `Goes on from “${task.prompt.slice(0, 60)}”`;
  $("prompt").value = task.prompt;
  $("prompt").focus();
}

function copy(task) {
  const made = task.granted;
  const size = `${made.width_px}x${made.height_px}`;
  if (![...$("resolution").options].some((option) => option.value === size || option.text === size)) {
    $("resolution").add(new Option(size));
  }
  const values = { prompt: task.prompt, resolution: size, duration: (made.num_frames - 1) / made.fps, seed: made.seed,
    fps: made.fps, steps: made.num_steps, guidance: made.guidance };
  for (const [name, value] of Object.entries(values)) $(name).value = value;
  $("prompt").focus();
}

// --- the task on the screen ----------------------------------------------------------------------------------------------

function open(task) {
  const other = !current || current.task_id !== task.task_id;
  if (other) stage.clear(task);
  show(task);
  for (const [id, card] of cards) card.button.setAttribute("aria-current", String(id === task.task_id));
  if (!other) return;
  if (task.status === "completed") finish(task);
  else if (!ENDED.includes(task.status)) stage.follow(task.task_id).catch(tell);
  else $("empty").textContent = task.status === "failed" ? "This one did not work." : "This one was cancelled.";
}

async function finish(task) {
  try {
    const url = await stage.play(task.task_id);
    if (!url) return;
    $("download").href = url;
    $("download").download = `${task.task_id}.mp4`;
    $("download").hidden = false;
  } catch (error) { tell(error); }
}

function tell(error) {
  $("said").textContent = error.message;
  $("said").classList.add("error");
}

const DOING = { text: "Reading the prompt", denoise: "Drawing", decode: "Developing the frames" };

function show(task) {
  current = task;
  const made = task.granted;
  const eta = task.eta_s == null ? "" : `, about ${span(task.eta_s)} to go`;
  const said = {
    queued: task.queue_position ? `Waiting: number ${task.queue_position} in the queue${eta}.` : "Waiting in the queue.",
    running: `${DOING[task.progress.stage] || "Starting"}: step ${task.progress.step} of ${task.progress.num_steps}${eta}.`,
    completed: `Done: ${made.width_px}×${made.height_px}, ${made.num_frames} frames at ${made.fps} a second, `
      + `${made.num_steps} steps, seed ${made.seed}.`,
    failed: `It did not work: ${task.error ? task.error.message : "the reason is not known"}.`,
    cancelled: "Cancelled.",
  };
  $("title").textContent = task.prompt;
  $("said").textContent = said[task.status];
  $("said").classList.toggle("error", task.status === "failed");
  const ended = ENDED.includes(task.status);
  $("bar").hidden = $("stages").hidden = ended;
  $("bar").value = task.progress.fraction;
  const order = ["text", "denoise", "decode", "done"];
  const now = task.status === "running" ? order.indexOf(task.progress.stage || "text") : -1;
  [...$("stages").children].forEach((item, index) => {
    item.className = index < now ? "past" : index === now ? "now" : "";
  });
  $("cancel").hidden = ended;
  $("remove").hidden = !ended;
  $("again").hidden = false;
  $("extend").hidden = task.status !== "completed";
  $("download").hidden = $("download").hidden || task.status !== "completed" || !$("download").download.startsWith(task.task_id);
  $("show-plan").hidden = !task.plan_url || (task.status === "queued");
  $("changes").replaceChildren(...task.adjustments.map(change));
  if (task.plan_url && task.status === "running" && planned !== task.task_id && task.progress.stage === "denoise") sketch(task);
}

function change({ field, asked, granted, reason }) {
  const line = document.createElement("li");
  const name = { resolution: "size", fps: "frames a second" }[field] || field;
  const what = document.createElement("b");
  what.textContent = `${name}: ${asked} → ${granted}`;
  const why = document.createElement("span");
  why.textContent = ` · ${reason}`;
  line.append(what, why);
  return line;
}

async function sketch(task, ask = false) {
  planned = task.task_id;
  try {
    const drawn = await stage.wireframe(task.task_id, task.granted.width_px / task.granted.height_px);
    if (drawn && (ask || stage.sees("empty"))) stage.see("plan");
  } catch (error) {
    if (ask) tell(error);   // unasked, the plan is only a picture to wait with
    else if (error.status === 409) planned = "";
  }
}

$("show-plan").addEventListener("click", async () => {
  const back = stage.sees("plan");
  if (!back) return sketch(current, true);
  stage.see(current.status === "completed" ? "player" : Number($("live").dataset.frames) ? "live" : "empty");
});
$("cancel").addEventListener("click", () => act(async () => show(await json(`/cancel/${current.task_id}`, { method: "POST" }))));
$("again").addEventListener("click", () => copy(current));
$("extend").addEventListener("click", () => goOn(current));
$("continues").lastElementChild.addEventListener("click", () => goOn(null));
$("remove").addEventListener("click", () => act(async () => {
  if (!confirm("Delete this video? It cannot be brought back.")) return;
  const id = current.task_id;
  await call(`/tasks/${id}`, { method: "DELETE" });
  older = older.filter((task) => task.task_id !== id);
  current = null;
  stage.clear(null);
  for (const name of ["cancel", "remove", "again", "extend", "download", "show-plan"]) $(name).hidden = true;
  $("title").textContent = "";
  $("changes").replaceChildren();
  $("said").textContent = "Deleted.";
}));

async function act(what) {
  try { await what(); refresh(); } catch (error) { tell(error); }
}

// --- queue and gallery --------------------------------------------------------------------------------------------------

let round = 0;
async function refresh() {
  const mine = ++round;
  clearTimeout(refresh.timer);
  if (hasKey() && !document.hidden) {
    try { await look(); } catch (error) {
      if (mine !== round) return;   // what was asked with the key before says nothing about this one
      if (error.status === 401) complain(error, { asked: false }); else if (current) tell(error);
    }
  }
  if (mine !== round) return;   // another one has begun: it goes on
  const busy = tasks.some((task) => !ENDED.includes(task.status));
  refresh.timer = setTimeout(refresh, busy && !document.hidden ? 500 : 5000);
}

async function look() {
  const page = await json("/tasks?limit=24");
  nextAfter = older.length ? nextAfter : page.next_after;
  // The list does not know places in the queue: those are asked for, of the first few.
  const waiting = page.tasks.filter((task) => !ENDED.includes(task.status)).slice(-8);
  const fresh = new Map((await Promise.all(waiting.map((task) => json(`/status/${task.task_id}`).catch(() => task))))
    .map((task) => [task.task_id, task]));
  tasks = page.tasks.map((task) => fresh.get(task.task_id) || task);
  $("key-field").hidden = true;
  $("change-key").hidden = false;
  queue(tasks.filter((task) => !ENDED.includes(task.status)).reverse());
  gallery([...tasks, ...older].filter((task) => ENDED.includes(task.status)));
  const now = tasks.find((task) => current && task.task_id === current.task_id);
  if (now) {
    const done = current.status !== "completed" && now.status === "completed";
    show(now);
    if (done) { finish(now); usage(); }
  }
}

function queue(waiting) {
  $("queue-card").hidden = waiting.length === 0;
  $("queue").replaceChildren(...waiting.map((task) => {
    const line = document.createElement("li");
    const name = document.createElement("button");
    name.type = "button";
    name.className = "open";
    name.textContent = task.prompt;
    name.addEventListener("click", () => open(task));
    const when = document.createElement("span");
    when.className = "when";
    const eta = task.eta_s == null ? "" : ` · ${span(task.eta_s)}`;
    when.textContent = task.status === "running" ? `${task.progress.step}/${task.progress.num_steps}${eta}`
      : `no. ${task.queue_position ?? "…"}${eta}`;
    const stop = document.createElement("button");
    stop.type = "button";
    stop.className = "plain";
    stop.textContent = "Cancel";
    stop.setAttribute("aria-label", `Cancel ${task.prompt.slice(0, 60)}`);
    stop.addEventListener("click", () => act(() => json(`/cancel/${task.task_id}`, { method: "POST" })));
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = task.progress.fraction;
    bar.setAttribute("aria-label", "Progress");
    line.append(name, when, stop, bar);
    return line;
  }));
}

function gallery(ended) {
  const wantedIds = new Set(ended.map((task) => task.task_id));
  for (const [id, card] of cards) if (!wantedIds.has(id)) { card.button.remove(); cards.delete(id); }
  ended.forEach((task, index) => {
    if (!cards.has(task.task_id)) cards.set(task.task_id, { button: makeCard(task) });
    const button = cards.get(task.task_id).button;
    if ($("gallery").children[index] !== button) $("gallery").insertBefore(button, $("gallery").children[index] || null);
  });
  $("none").hidden = ended.length > 0;
  $("older").hidden = !nextAfter;
}

function makeCard(task) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = task.prompt;
  const frame = document.createElement("span");
  frame.className = "picture";
  const words = document.createElement("span");
  words.className = "words";
  words.textContent = task.prompt;
  const facts = document.createElement("span");
  facts.className = "facts";
  const made = task.granted;
  facts.textContent = task.status === "completed"
    ? `${made.width_px}×${made.height_px} · ${((made.num_frames - 1) / made.fps).toFixed(1)} s · ${made.num_steps} steps`
    : task.status;
  button.append(frame, words, facts);
  button.addEventListener("click", () => { open(task); $("screen").scrollIntoView({ block: "nearest" }); });
  if (task.status === "completed") illustrate(task, frame, button);
  else frame.textContent = task.status === "failed" ? "did not work" : "cancelled";
  return button;
}

async function illustrate(task, frame, button) {
  const image = document.createElement("img");
  image.alt = "";
  try {
    if (!thumbnails.has(task.task_id)) thumbnails.set(task.task_id, await blobUrl(`/content/${task.task_id}?variant=thumbnail`));
    image.src = thumbnails.get(task.task_id);
    frame.append(image);
  } catch { frame.textContent = "no picture"; }
  let film = null;
  const stop = () => { clearTimeout(film?.timer); if (film?.url) URL.revokeObjectURL(film.url); film = null; frame.replaceChildren(image); };
  const start = () => {
    if (film || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const mine = film = { timer: setTimeout(async () => {
      const url = await blobUrl(`/content/${task.task_id}`).catch(() => null);
      if (!url || film !== mine) return;
      mine.url = url;
      const video = Object.assign(document.createElement("video"), { muted: true, loop: true, autoplay: true, playsInline: true, src: url });
      frame.replaceChildren(video);
    }, 200) };
  };
  button.addEventListener("pointerenter", start);
  button.addEventListener("focus", start);
  for (const name of ["pointerleave", "blur"]) button.addEventListener(name, stop);
}

$("older").addEventListener("click", () => act(async () => {
  const page = await json(`/tasks?limit=24&after=${encodeURIComponent(nextAfter)}`);
  older = [...older, ...page.tasks];
  nextAfter = page.next_after;
}));

// --- key, quota, service, keyboard, colours ---------------------------------------------------------------------------

function takeKey() {
  if ($("key").value.trim() && $("key").value.trim() !== currentKey()) useKey($("key").value);
}
function askForKey() {
  $("key-field").hidden = false;
  $("change-key").hidden = true;
}
$("key").addEventListener("change", () => { content(); takeKey(); refresh(); usage(); });
$("change-key").addEventListener("click", () => { askForKey(); $("key").focus(); $("key").select(); });

async function usage() {
  if (!hasKey()) return;
  try {
    const windows = (await json("/usage")).windows.filter((window) => window.limit_s);
    const tight = windows.sort((a, b) => b.share - a.share)[0];
    $("quota").hidden = !tight;
    if (!tight) return;
    $("quota").textContent = `${tight.used_s.toFixed(0)} of ${tight.limit_s.toFixed(0)} s ${tight.window === "day" ? "today" : `this ${tight.window}`}`;
    $("quota").dataset.state = tight.share >= 0.8 ? "tight" : "";
  } catch { $("quota").hidden = true; }   // the form tells what is wrong with the key
}

async function service() {
  const say = (state, text) => { $("service").dataset.state = state; $("service").textContent = text; };
  try {
    const answer = await fetch("/ready");
    const state = await answer.json();
    if (answer.ok) say("ready", "ready"); else say("wait", `not ready: ${state.detail}`);
  } catch { say("away", "not reachable"); }
  setTimeout(service, 5000);
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); return $("form").requestSubmit(); }
  const card = event.target.closest?.(".gallery button");
  if (card && (event.key === "ArrowRight" || event.key === "ArrowLeft")) {
    event.preventDefault();
    return (event.key === "ArrowRight" ? card.nextElementSibling : card.previousElementSibling)?.focus();
  }
  if (event.target.closest?.("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("prompt").focus(); }
  if (event.key === "?") $("shortcuts").showModal();
});
$("help").addEventListener("click", () => $("shortcuts").showModal());

const COLOURS = { auto: "as the system", light: "light", dark: "dark" };
function colours(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("kling-theme", name);
  $("theme").textContent = name[0].toUpperCase() + name.slice(1);
  $("theme").setAttribute("aria-label", `Colours: ${COLOURS[name]}`);
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(COLOURS);
  colours(names[(names.indexOf(localStorage.getItem("kling-theme") || "auto") + 1) % names.length]);
});

$("ideas").append(...IDEAS.map((idea) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = idea;
  button.addEventListener("click", () => { $("prompt").value = idea; $("prompt").focus(); });
  return button;
}));
colours(localStorage.getItem("kling-theme") in COLOURS ? localStorage.getItem("kling-theme") : "auto");
$("key").value = currentKey();
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
service();
refresh();
usage();
